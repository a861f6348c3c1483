//! Connection states.

/// A state of RFC 9293 §3.3.2, as shown to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// A SYN was sent.
    SynSent,
    /// A SYN arrived and was answered; its acknowledgment is awaited.
    SynReceived,
    /// Data flows both ways.
    Established,
    /// Our FIN was sent and not yet acknowledged.
    FinWait1,
    /// Our FIN is acknowledged; the peer may still send.
    FinWait2,
    /// The peer's FIN arrived; we may still send.
    CloseWait,
    /// Both FINs crossed; ours is not yet acknowledged.
    Closing,
    /// Our FIN, sent after the peer's, is not yet acknowledged.
    LastAck,
    /// Both sides are done; stray segments are awaited.
    TimeWait,
    /// No connection.
    Closed,
}
