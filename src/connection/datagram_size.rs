//! Carries between the search for the path's MTU, the sender that works with its result, and what tells of both.

use crate::Timestamp;
use crate::connection::Connection;

impl Connection {
    /// The handshake is done: the search begins, unless the size is fixed or probes could not be told apart.
    pub(super) fn start_path_mtu(&mut self, now: Timestamp) {
        let Some(negotiated) = self.negotiated else {
            return;
        };
        let is_enabled = self.config.path_mtu_discovery && negotiated.sack;
        let limit = negotiated.datagram_limit(&self.config);
        self.path_mtu.start(now, limit, is_enabled);
    }

    /// Takes what became of the latest probe.
    pub(super) fn update_path_mtu(&mut self, now: Timestamp) {
        if let Some(outcome) = self.sender.take_path_probe_outcome() {
            self.path_mtu.on_probe_outcome(now, outcome);
            self.apply_path_mtu();
        }
    }

    /// The retransmission timer has expired: what was sent may be too large for the path by now. While the
    /// peer's window is closed it refuses whatever arrives.
    pub(super) fn doubt_path_mtu(&mut self, now: Timestamp) {
        if self.sender.snd_wnd() > 0 {
            let consecutive = self.sender.recovery().consecutive_timeouts();
            self.path_mtu.on_timeout(now, consecutive);
            self.apply_path_mtu();
        }
    }

    /// The system refused what [`poll_transmit`](Self::poll_transmit) returned last, because a datagram of
    /// `datagram_size` bytes is larger than the interface takes: what it carried is sent again at once.
    pub fn handle_refused(&mut self, now: Timestamp, datagram_size: usize) {
        let was = self.path_mtu.clone();
        self.path_mtu.on_refused(now, datagram_size);
        // A fixed size remains, and what it carried counts as lost on the way.
        if self.path_mtu != was {
            self.sender.on_refused();
            self.apply_path_mtu();
        }
    }

    /// Returns the largest datagram that is sent, a probe of the path's MTU apart, in bytes.
    pub fn datagram_size(&self) -> usize {
        self.path_mtu.size()
    }

    /// Returns how often a datagram size that the path had carried no longer passed.
    pub fn black_holes(&self) -> u64 {
        self.path_mtu.black_holes()
    }

    fn apply_path_mtu(&mut self) {
        if let Some(negotiated) = self.negotiated {
            let mss = negotiated.mss(&self.config, self.path_mtu.size()) as u64;
            if mss != self.sender.mss() {
                self.sender.set_mss(mss);
            }
        }
    }
}
