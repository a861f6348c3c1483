//! The congestion marks of the IP header.

/// Congestion marks of RFC 3168 §5 in the IP header; a datagram without one is not ECN-capable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ecn {
    /// ECN-capable transport, codepoint 01.
    Ect1,
    /// ECN-capable transport, codepoint 10.
    Ect0,
    /// Congestion experienced, codepoint 11.
    Ce,
}

/// Where a connection stands with explicit congestion notification (RFC 3168).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum EcnState {
    /// Not agreed on: switched off on one side, or the handshake is not done.
    #[default]
    Off,
    /// What the peer marks is echoed; nothing is marked here, because this side had to send a SYN or SYN-ACK
    /// without the offer (RFC 3168 §6.1.1).
    EchoOnly,
    /// Agreed on: new data leaves as ECT(0), and an echo reduces the window.
    Capable,
    /// What was marked did not arrive, so that nothing is marked any more.
    BlackHoled,
    /// What was marked arrived with the mark "congestion experienced" in every round trip, however small
    /// the window, so that nothing is marked any more and echoes are ignored.
    AlwaysMarked,
}
