//! Settings with a fixed set of words.

use super::text::deserialize_from_str;

/// Declares an enum with the words that stand for its variants in a configuration.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// The word for it in a configuration.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(format!("{text:?} is unknown: use {}", one_of(&[$($word),*]))),
                }
            }
        }

        deserialize_from_str!($name, "a string");
    };
}

choice! {
    /// How the carrier looks: how it begins, and how its sequence numbers move.
    Mode {
        /// Tries the others in their order and keeps what works.
        #[default]
        Auto = "auto",
        /// SYN, SYN-ACK, ACK first; sequence numbers grow with the data.
        HandshakeAdvance = "handshake+advance",
        /// SYN, SYN-ACK, ACK first; sequence numbers stand still after it.
        HandshakeFixed = "handshake+fixed",
        /// Data at once; sequence numbers grow with it.
        BareAdvance = "bare+advance",
        /// Data at once; sequence numbers stand still.
        BareFixed = "bare+fixed",
    }
}

choice! {
    /// Which congestion control paces KCP.
    Congestion {
        /// At the delivery rate, corrected for the loss of an empty queue.
        #[default]
        Bbr = "bbr",
        /// KCP's own window, which shrinks on loss.
        Loss = "loss",
        /// None: the full window.
        None = "none",
    }
}

choice! {
    /// When an app's connect is answered.
    Connect {
        /// When the target has answered, and as the target answered.
        #[default]
        Faithful = "faithful",
        /// At once, before the target is asked.
        Fast = "fast",
    }
}

choice! {
    /// What a carrier sends before the first sealed packet.
    Preface {
        /// Nothing.
        #[default]
        Off = "off",
        /// An HTTP request.
        Http = "http",
    }
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_word_and_names_them_all_for_another() {
        for word in ["auto", "handshake+advance", "handshake+fixed", "bare+advance", "bare+fixed"] {
            assert_eq!(word.parse::<Mode>().unwrap().as_str(), word);
        }
        assert_eq!(
            "cubic".parse::<Congestion>(),
            Err(r#""cubic" is unknown: use "bbr", "loss" or "none""#.to_owned())
        );
    }
}
