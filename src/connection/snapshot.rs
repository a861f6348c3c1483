//! The statistics that a connection shows.

use crate::connection::Connection;
use crate::connection::limits::Limit;
use crate::{ConnectionStats, Timestamp};

impl Connection {
    /// Returns a snapshot of what the connection has counted and estimated, as of its latest event.
    #[cfg_attr(
        not(any(test, fuzzing, feature = "__internals")),
        allow(dead_code, reason = "reached through `internals` only")
    )]
    pub fn stats(&self) -> ConnectionStats {
        self.stats_at(self.limits.latest())
    }

    /// Returns the same as of `now`.
    pub fn stats_at(&self, now: Timestamp) -> ConnectionStats {
        let recovery = self.sender.recovery();
        let rtt = recovery.rtt();
        let counted = recovery.counters();
        let rate = recovery.latest_rate();
        let rare = self.counters.rare.as_deref().copied().unwrap_or_default();
        let received = self.receiver.counters();
        ConnectionStats {
            state: self.state,
            srtt: rtt.srtt(),
            rttvar: rtt.rttvar(),
            min_rtt: rtt.min_rtt(),
            latest_rtt: rtt.latest_rtt(),
            rto: recovery.current_rto(),
            congestion_control: recovery.controller().name(),
            congestion_phase: if recovery.is_in_recovery() && recovery.controller().uses_prr() {
                "recovery"
            } else {
                recovery.controller().phase()
            },
            cwnd: recovery.controller().cwnd(),
            ssthresh: recovery.controller().ssthresh(),
            flight_size: recovery.flight_size(),
            bytes_in_flight: recovery.pipe(),
            pacing_rate: recovery.pacing_rate(),
            delivery_rate: rate.map_or(0, |(bytes_per_second, _)| bytes_per_second),
            is_app_limited: rate.is_some_and(|(_, is_app_limited)| is_app_limited),
            mss: usize::try_from(self.sender.mss()).unwrap_or(usize::MAX),
            datagram_size: self.path_mtu.size(),
            path_probes_sent: self.path_mtu.probes_sent(),
            path_probes_lost: self.path_mtu.probes_lost(),
            black_holes: self.path_mtu.black_holes(),
            snd_wnd: self.sender.snd_wnd(),
            rcv_wnd: self.receiver.rcv_wnd(),
            send_buffer_bytes: self.sender.buffered(),
            send_buffer_size: self.sender.buffer_capacity(),
            unsent_bytes: usize::try_from(self.sender.unsent()).unwrap_or(usize::MAX),
            receive_buffer_bytes: self.receiver.readable_bytes(),
            receive_buffer_size: self.receiver.capacity(),
            out_of_order_bytes: self.receiver.out_of_order_bytes(),
            segments_sent: self.counters.segments_sent,
            segments_received: self.counters.segments_received,
            segments_retransmitted: rare.segments_retransmitted,
            segments_lost: counted.segments_lost,
            segments_duplicate: received.segments_duplicate,
            segments_out_of_order: received.segments_out_of_order,
            bytes_sent: self.counters.bytes_sent,
            // SYN and FIN take a number each and are no bytes.
            bytes_acked: (recovery.snd_una().get())
                .saturating_sub(1 + u64::from(self.sender.is_fin_acked())),
            bytes_received: received.bytes_received,
            bytes_retransmitted: rare.bytes_retransmitted,
            rto_count: counted.rto_count,
            fast_recovery_count: counted.fast_recovery_count,
            is_in_recovery: recovery.is_in_recovery(),
            tlp_count: counted.tlp_count,
            tlp_repair_count: counted.tlp_repair_count,
            segments_spurious: counted.segments_spurious,
            undo_count: counted.undo_count,
            frto_count: counted.frto_count,
            reordering_count: counted.reordering_count,
            reordering_window: recovery.reo_wnd(),
            zero_window_probes: self.sender.zero_window_probes(),
            keepalive_probes: rare.keepalive_probes,
            segments_unacceptable: rare.segments_unacceptable,
            ecn: recovery.ecn().state(),
            ecn_segments_marked: recovery.ecn().segments_marked(),
            ecn_reductions: recovery.ecn().reductions(),
            ecn_ce: self.echo.ce,
            ecn_ect: self.echo.ect,
            ecn_unmarked: self.echo.unmarked,
            acks_of_unsent_data: rare.acks_of_unsent_data,
            challenge_acks: rare.challenge_acks,
            memory_bytes: self.memory(),
            cwnd_limited_time: self.limits.time(now, Limit::Congestion),
            rwnd_limited_time: self.limits.time(now, Limit::PeerWindow),
            send_buffer_limited_time: self.limits.time(now, Limit::SendBuffer),
            app_limited_time: self.limits.time(now, Limit::Application),
            pacing_limited_time: self.limits.time(now, Limit::Pacing),
        }
    }
}
