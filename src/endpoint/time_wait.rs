//! Compact TIME-WAIT records: what is left of a connection that both sides have closed.
//!
//! A record answers a retransmitted FIN (RFC 9293 §3.10.7.4), ignores resets (RFC 1337 §3, fix F1) and
//! makes room for a new connection from the same peer when timestamps or sequence numbers prove that the
//! SYN is newer (RFC 6191 §2). The table holds a limited number; the one that would expire first makes room.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::demux::{Key, KeyedHash};
use crate::connection::TimeWaitRecord;
use crate::timestamp::Timestamp;
use crate::wire::{Flags, Header, Integrity, Options, Segment, SeqNumber, Timestamps};

/// How long a record stays in force against this side's own next connection: PAWS between two endpoints of this
/// crate lets pass what is 250 ms late, and a tick of the timestamps' clock is 1 ms.
const REOPENED_AFTER: Duration = Duration::from_millis(300);

/// TIME-WAIT records by key and by time of expiry.
///
/// Invariants:
/// - `order` and `records` hold the same keys, each once;
/// - there are at most `capacity` of them.
#[derive(Debug)]
pub(super) struct TimeWaitTable {
    records: HashMap<Key, Entry, KeyedHash>,
    order: BTreeMap<Place, Key>,
    capacity: usize,
    next_serial: u64,
}

/// A place in the order of expiry; the serial number tells equal times apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    expires: Timestamp,
    serial: u64,
}

#[derive(Debug)]
struct Entry {
    record: TimeWaitRecord,
    /// For how long a retransmitted FIN prolongs it.
    length: Duration,
    place: Place,
}

/// What is to be done about a segment that met a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The integrity check that the connection had negotiated does not hold.
    Damaged,
    /// Nothing.
    Ignore,
    /// Send this.
    Answer(Box<Header>, Integrity),
    /// It opens a new connection, whose sequence numbers must begin after this one.
    Reopen(SeqNumber),
}

impl TimeWaitTable {
    pub(super) fn new(hash: &KeyedHash, capacity: usize) -> Self {
        Self {
            records: HashMap::with_hasher(hash.clone()),
            order: BTreeMap::new(),
            capacity,
            next_serial: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    #[cfg(test)]
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.records.contains_key(key)
    }

    /// Whether this side may open a connection with this key: there is no record of an earlier one, or both
    /// sides can tell their segments apart, because the new one `has_timestamps` as well. It must then begin after
    /// what [`remove`](Self::remove) returns.
    ///
    /// RFC 6191 §2 lets the peer take such a SYN in TIME-WAIT because its timestamp is larger than any that it
    /// has seen; this is the same rule for the record on our own side. Old segments of ours lie before the new
    /// connection's numbers; those of the peer fail PAWS, since its clock goes on too (RFC 7323 §5.4). A peer that still waits for the last ACK resets its old connection when it
    /// meets our SYN (RFC 9293 §3.5.1, Figure 8).
    pub(super) fn may_be_reopened(&self, now: Timestamp, key: &Key, has_timestamps: bool) -> bool {
        // Deviation from RFC 9293 §3.6.1: not only a SYN of the peer ends the wait, because an address pair
        // would otherwise carry no more connections per TIME-WAIT than there are ports.
        let Some(entry) = self.records.get(key) else {
            return true;
        };
        // The wait began with the latest segment that could matter: the ACK of the peer's FIN.
        let remaining = entry.record.expires.saturating_since(now);
        let is_told_apart = entry.record.ts_recent.is_some() && has_timestamps;
        is_told_apart && remaining.saturating_add(REOPENED_AFTER) <= entry.length
    }

    /// Returns when the first record expires.
    pub(super) fn earliest(&self) -> Option<Timestamp> {
        self.order.first_key_value().map(|(place, _)| place.expires)
    }

    /// Adds a record; `length` is the configured length of TIME-WAIT.
    pub(super) fn insert(&mut self, key: Key, record: TimeWaitRecord, length: Duration) {
        if self.capacity == 0 {
            return;
        }
        self.remove(&key);
        if self.records.len() >= self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.records.remove(&oldest);
        }
        let place = self.next_place(record.expires);
        self.order.insert(place, key);
        self.records.insert(
            key,
            Entry {
                record,
                length,
                place,
            },
        );
    }

    /// Removes a record; returns the sequence number that a new connection has to begin after.
    pub(super) fn remove(&mut self, key: &Key) -> Option<SeqNumber> {
        let entry = self.records.remove(key)?;
        self.order.remove(&entry.place);
        Some(entry.record.snd_nxt)
    }

    /// Removes what has expired.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while let Some(first) = self.order.first_entry() {
            if first.key().expires > now {
                break;
            }
            self.records.remove(&first.remove());
        }
    }

    /// Judges a segment; `None` if there is no record for it.
    pub(super) fn judge(
        &mut self,
        now: Timestamp,
        key: &Key,
        segment: &Segment<'_>,
    ) -> Option<Verdict> {
        let record = &mut self.records.get_mut(key)?.record;
        let flags = segment.header.flags;
        let is_syn = flags.contains(Flags::SYN);
        let integrity = if is_syn {
            Integrity::Sum
        } else {
            record.integrity
        };
        if !segment.verify(integrity) {
            return Some(Verdict::Damaged);
        }
        // RFC 1337 §3 (F1): a reset does not end TIME-WAIT.
        if flags.contains(Flags::RST) {
            return Some(Verdict::Ignore);
        }
        if is_opening(flags) {
            let verdict = if is_newer_incarnation(record, segment) {
                Verdict::Reopen(record.snd_nxt)
            } else {
                // RFC 6191 §2: "silently drop the incoming SYN segment".
                Verdict::Ignore
            };
            return Some(verdict);
        }
        // Deviation from RFC 9293 §3.10.7.4: an unacceptable segment that takes no sequence number is
        // not acknowledged, because two sides in TIME-WAIT would answer each other for ever.
        if segment.sequence_len() == 0 {
            return Some(Verdict::Ignore);
        }
        let is_last = segment.header.seq + segment.sequence_len() == record.rcv_nxt;
        let is_fin = flags.contains(Flags::FIN) && is_last && !is_older_than_seen(record, segment);
        if let (true, Some(recent), Some(option)) = (
            is_fin,
            &mut record.ts_recent,
            segment.header.options.timestamps,
        ) {
            *recent = option.tsval;
        }
        let answer = acknowledgment(now, record, segment);
        let integrity = record.integrity;
        // RFC 9293 §3.10.7.4: a retransmitted FIN restarts the 2 MSL timeout.
        if is_fin {
            self.prolong(now, key);
        }
        Some(Verdict::Answer(Box::new(answer), integrity))
    }

    fn prolong(&mut self, now: Timestamp, key: &Key) {
        let serial = self.next_serial;
        let Some(entry) = self.records.get_mut(key) else {
            return;
        };
        let place = Place {
            expires: now + entry.length,
            serial,
        };
        self.next_serial += 1;
        self.order.remove(&entry.place);
        self.order.insert(place, *key);
        entry.place = place;
        entry.record.expires = place.expires;
    }

    fn next_place(&mut self, expires: Timestamp) -> Place {
        let serial = self.next_serial;
        self.next_serial += 1;
        Place { expires, serial }
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn check_invariants(&self) {
        assert!(
            self.records.len() <= self.capacity,
            "more records than allowed"
        );
        assert_eq!(
            self.records.len(),
            self.order.len(),
            "records without a place"
        );
        for (place, key) in &self.order {
            let entry = self.records.get(key);
            assert_eq!(entry.map(|entry| entry.place), Some(*place), "{key:?}");
        }
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.records.keys()
    }
}

/// Whether a segment asks for a connection and does nothing else.
fn is_opening(flags: Flags) -> bool {
    flags.contains(Flags::SYN) && !flags.intersects(Flags::ACK | Flags::FIN | Flags::RST)
}

/// RFC 6191 §2: whether a SYN can only come from a new incarnation of the connection.
pub(super) fn is_newer_incarnation(record: &TimeWaitRecord, syn: &Segment<'_>) -> bool {
    if !is_opening(syn.header.flags) {
        return false;
    }
    let is_beyond = !syn.header.seq.precedes(record.rcv_nxt);
    match (record.ts_recent, syn.header.options.timestamps) {
        (Some(recent), Some(Timestamps { tsval, .. })) => {
            let advance = tsval.wrapping_sub(recent);
            (1..1 << 31).contains(&advance) || (advance == 0 && is_beyond)
        }
        (None, Some(_)) => true,
        (Some(_) | None, None) => is_beyond,
    }
}

/// RFC 7323 §5.3 R1: whether PAWS rejects the segment.
fn is_older_than_seen(record: &TimeWaitRecord, segment: &Segment<'_>) -> bool {
    match (record.ts_recent, segment.header.options.timestamps) {
        (Some(recent), Some(option)) => recent.wrapping_sub(option.tsval).wrapping_sub(1) < 1 << 31,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// RFC 9293 §3.10.7.4: `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`
fn acknowledgment(now: Timestamp, record: &TimeWaitRecord, segment: &Segment<'_>) -> Header {
    let timestamps = record.ts_recent.map(|tsecr| Timestamps {
        tsval: timestamp_clock(now, record.timestamp_offset),
        tsecr,
    });
    Header {
        src_port: segment.header.dst_port,
        dst_port: segment.header.src_port,
        seq: record.snd_nxt,
        ack: record.rcv_nxt,
        flags: Flags::ACK,
        window: record.window_field,
        options: Options {
            timestamps,
            ..Options::default()
        },
    }
}

/// The clock of the timestamps option, as the connection has it: milliseconds plus an offset.
pub(super) fn timestamp_clock(now: Timestamp, offset: u32) -> u32 {
    super::secrets::low_half(now.as_millis()).wrapping_add(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    const LENGTH: Duration = Duration::from_secs(60);

    fn key(local_port: u16) -> Key {
        Key::new("10.0.0.1:9".parse().unwrap(), 7, local_port)
    }

    fn record(expires: Timestamp) -> TimeWaitRecord {
        TimeWaitRecord {
            local_port: 1,
            remote_port: 7,
            snd_nxt: SeqNumber::new(1_000),
            rcv_nxt: SeqNumber::new(5_000),
            ts_recent: Some(300),
            timestamp_offset: 0,
            integrity: Integrity::Sum,
            expires,
            window_field: 1_024,
        }
    }

    fn table(record: TimeWaitRecord) -> TimeWaitTable {
        let mut table = TimeWaitTable::new(&KeyedHash::new(1), 2);
        table.insert(key(1), record, LENGTH);
        table
    }

    fn encode(flags: Flags, seq: u32, tsval: Option<u32>) -> Vec<u8> {
        let timestamps = tsval.map(|tsval| Timestamps { tsval, tsecr: 0 });
        let header = Header {
            src_port: 7,
            dst_port: 1,
            seq: SeqNumber::new(seq),
            flags,
            options: Options {
                timestamps,
                ..Options::default()
            },
            ..Header::default()
        };
        let mut buf = vec![0; 60];
        let len = header.encode(&mut buf).unwrap();
        buf.truncate(len);
        wire::seal(&mut buf, Integrity::Sum);
        buf
    }

    fn judge(table: &mut TimeWaitTable, now: Timestamp, datagram: &[u8]) -> Option<Verdict> {
        let verdict = table.judge(now, &key(1), &Segment::decode(datagram).unwrap());
        table.check_invariants();
        verdict
    }

    #[test]
    fn a_retransmitted_fin_is_acknowledged_and_restarts_the_wait() {
        let start = Timestamp::from_millis(60_000);
        let mut table = table(record(start));
        let now = Timestamp::from_millis(50_000);
        let fin = encode(Flags::FIN | Flags::ACK, 4_999, Some(301));
        let Some(Verdict::Answer(header, Integrity::Sum)) = judge(&mut table, now, &fin) else {
            panic!("no answer");
        };
        assert_eq!((header.seq.get(), header.ack.get()), (1_000, 5_000));
        assert_eq!(header.flags, Flags::ACK);
        assert_eq!(header.window, 1_024);
        assert_eq!(
            header.options.timestamps,
            Some(Timestamps {
                tsval: 50_000,
                tsecr: 301
            })
        );
        assert_eq!(table.earliest(), Some(now + LENGTH));
    }

    #[test]
    fn only_the_real_fin_restarts_the_wait() {
        let expires = Timestamp::from_millis(60_000);
        let cases = [
            (
                "older timestamp",
                encode(Flags::FIN | Flags::ACK, 4_999, Some(299)),
            ),
            ("no timestamp", encode(Flags::FIN | Flags::ACK, 4_999, None)),
            (
                "another number",
                encode(Flags::FIN | Flags::ACK, 4_998, Some(301)),
            ),
        ];
        for (name, datagram) in cases {
            let mut table = table(record(expires));
            let verdict = judge(&mut table, Timestamp::from_millis(10), &datagram);
            assert!(matches!(verdict, Some(Verdict::Answer(..))), "{name}");
            assert_eq!(table.earliest(), Some(expires), "{name}");
        }
    }

    #[test]
    fn resets_and_bare_acks_change_nothing() {
        let mut table = table(record(Timestamp::from_millis(60_000)));
        for flags in [Flags::RST, Flags::RST | Flags::ACK, Flags::ACK] {
            let datagram = encode(flags, 5_000, Some(400));
            assert_eq!(
                judge(&mut table, Timestamp::ZERO, &datagram),
                Some(Verdict::Ignore)
            );
        }
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_syn_opens_a_new_incarnation_only_if_it_is_provably_newer() {
        // (name, record's timestamp, SYN's number, SYN's timestamp, accepted)
        let cases = [
            ("later timestamp", Some(300), 10, Some(301), true),
            (
                "same timestamp, larger number",
                Some(300),
                5_000,
                Some(300),
                true,
            ),
            (
                "same timestamp, smaller number",
                Some(300),
                4_999,
                Some(300),
                false,
            ),
            ("earlier timestamp", Some(300), 9_000, Some(299), false),
            (
                "timestamps gone, larger number",
                Some(300),
                5_000,
                None,
                true,
            ),
            (
                "timestamps gone, smaller number",
                Some(300),
                4_000,
                None,
                false,
            ),
            ("timestamps are new", None, 10, Some(1), true),
            ("never timestamps, larger number", None, 5_001, None, true),
            ("never timestamps, smaller number", None, 4_999, None, false),
        ];
        for (name, ts_recent, seq, tsval, accepted) in cases {
            let mut table = table(TimeWaitRecord {
                ts_recent,
                ..record(Timestamp::from_millis(60_000))
            });
            let verdict = judge(&mut table, Timestamp::ZERO, &encode(Flags::SYN, seq, tsval));
            let expected = if accepted {
                Verdict::Reopen(SeqNumber::new(1_000))
            } else {
                Verdict::Ignore
            };
            assert_eq!(verdict, Some(expected), "{name}");
        }
    }

    #[test]
    fn the_negotiated_check_is_demanded() {
        let mut table = table(TimeWaitRecord {
            integrity: Integrity::Crc32c,
            ..record(Timestamp::from_millis(60_000))
        });
        let fin = encode(Flags::FIN | Flags::ACK, 4_999, Some(301));
        assert_eq!(
            judge(&mut table, Timestamp::ZERO, &fin),
            Some(Verdict::Damaged)
        );
    }

    #[test]
    fn the_record_nearest_to_its_end_makes_room() {
        let mut table = table(record(Timestamp::from_millis(200)));
        table.insert(key(2), record(Timestamp::from_millis(100)), LENGTH);
        table.insert(key(3), record(Timestamp::from_millis(300)), LENGTH);
        table.check_invariants();
        assert!(table.contains(&key(1)) && !table.contains(&key(2)) && table.contains(&key(3)));
        table.expire(Timestamp::from_millis(200));
        assert_eq!(table.len(), 1);
        assert_eq!(table.earliest(), Some(Timestamp::from_millis(300)));
        table.check_invariants();
    }

    #[test]
    fn a_table_without_room_holds_nothing() {
        let mut table = TimeWaitTable::new(&KeyedHash::new(1), 0);
        table.insert(key(1), record(Timestamp::from_millis(1)), LENGTH);
        assert_eq!(table.len(), 0);
    }
}
