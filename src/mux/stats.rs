//! What a [`Mux`](super::Mux) counts.

/// Counters since the start of the epoch, and the present sizes.
///
/// What is ignored or refused stands under the name of its reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Streams that are not forgotten, now.
    pub streams: usize,
    /// Of those, the ones that the peer opened.
    pub streams_of_peer: usize,
    /// Bytes that wait to be sent, now.
    pub send_buffered: usize,
    /// Bytes that wait to be read, now.
    pub receive_buffered: usize,
    /// Streams opened by this end.
    pub opened_here: u64,
    /// Streams opened by the peer, without those refused for a bound.
    pub opened_by_peer: u64,
    /// Stream bytes put into frames.
    pub sent_bytes: u64,
    /// Stream bytes taken out of frames.
    pub received_bytes: u64,
    /// Resets sent, refusals included.
    pub resets_sent: u64,
    /// Resets received for streams we had.
    pub resets_received: u64,
    /// Peer's streams refused because there are too many or came too fast, or because we said `GOAWAY`.
    pub refused_opens: u64,
    /// Of those, the ones that came too fast.
    pub hurried_opens: u64,
    /// Refusals not even answered, because too many answers wait already.
    pub unanswered_opens: u64,
    /// `PING`s not answered, because too many answers wait already.
    pub unanswered_pings: u64,
    /// Frames for a stream that was reset or forgotten a moment ago.
    pub frames_for_closed: u64,
    /// Streams reset because their bytes passed the session's bound.
    pub over_budget: u64,
    /// Streams reset because the peer sent bytes or a second `FIN` after its `FIN`.
    pub data_after_fin: u64,
    /// Streams reset because the peer sent more than it was granted.
    pub credit_overruns: u64,
    /// Streams reset because the peer lowered a limit.
    pub credit_shrinks: u64,
}
