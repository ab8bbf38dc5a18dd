//! What the article on KCP describes, thing by thing: each test drives one end packet by packet in virtual time.
