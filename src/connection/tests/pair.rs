//! Two connections face to face over a lossy link with a fixed delay, on a virtual clock.

use std::collections::BTreeMap;

use super::*;

const DELAY: Duration = Duration::from_millis(10);

struct Pair {
    now: Timestamp,
    ends: [Connection; 2],
    wire: BTreeMap<(Timestamp, u64), (usize, Bytes)>,
    sent: u64,
    random: u64,
    loss_percent: u64,
}

impl Pair {
    fn new(config: &Config, seed: u64, loss_percent: u64) -> Self {
        let config = Arc::new(config.clone());
        let now = Timestamp::from_millis(1);
        let client = Connection::connect(now, Arc::clone(&config), &PARAMS);
        let server_params = OpenParams {
            local_port: 1,
            remote_port: 40_000,
            iss: SeqNumber::new(5_000),
            ..PARAMS
        };
        // The listener's part is played by a simultaneous open.
        let server = Connection::connect(now, config, &server_params);
        Self {
            now,
            ends: [client, server],
            wire: BTreeMap::new(),
            sent: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            loss_percent,
        }
    }

    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn flush(&mut self, end: usize) {
        let mut buf = vec![0; 65_536];
        while let Some(transmit) = self.ends[end].poll_transmit(self.now, 40, &mut buf) {
            for bytes in buf[..transmit.len].chunks(transmit.segment_size) {
                self.sent += 1;
                if self.draw() % 100 >= self.loss_percent {
                    let due = self.now + DELAY + Duration::from_micros(self.sent % 3);
                    let datagram = Bytes::copy_from_slice(bytes);
                    self.wire.insert((due, self.sent), (1 - end, datagram));
                }
            }
        }
        self.ends[end].check_invariants();
    }

    /// Goes to the next event; false when there is none.
    fn step(&mut self) -> bool {
        let timer = self.ends.iter().filter_map(Connection::poll_timeout).min();
        let arrival = self.wire.keys().next().map(|(at, _)| *at);
        let Some(next) = [timer, arrival].into_iter().flatten().min() else {
            return false;
        };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            let ((_, _), (end, bytes)) = self.wire.pop_first().unwrap();
            let segment = Segment::decode(&bytes).unwrap();
            let end_state = &mut self.ends[end];
            match end_state.expected_integrity(segment.header.flags) {
                Some(check) => assert!(segment.verify(check), "{segment:?}"),
                None => assert!(segment.integrity().is_some()),
            }
            end_state.handle_segment(self.now, &segment, &bytes);
            self.flush(end);
        } else {
            for end in 0..2 {
                self.ends[end].handle_timeout(self.now);
                self.flush(end);
            }
        }
        true
    }
}

fn transfer(config: &Config, seed: u64, loss_percent: u64, len: usize) {
    let mut pair = Pair::new(config, seed, loss_percent);
    let data = pattern(0, len);
    let mut written = [0; 2];
    let mut read = [Vec::new(), Vec::new()];
    for _ in 0..2_000_000 {
        for end in 0..2 {
            let rest = &data[written[end]..];
            if let Ok(taken) = pair.ends[end].write(pair.now, rest) {
                written[end] += taken;
            }
            if written[end] == len {
                let _ = pair.ends[end].finish(pair.now);
            }
            let mut buf = [0; 4_096];
            while let Ok(taken @ 1..) = pair.ends[end].read(pair.now, &mut buf) {
                read[end].extend_from_slice(&buf[..taken]);
            }
            // What a command does not announce waits for the peer or for a timer.
            let connection = &pair.ends[end];
            let is_due = connection.poll_timeout().is_some_and(|at| at <= pair.now);
            let (is_announced, sent) = (connection.has_transmit(), pair.sent);
            pair.flush(end);
            assert!(
                is_announced || is_due || pair.sent == sent,
                "seed {seed}, end {end}"
            );
        }
        if !pair.step() {
            break;
        }
    }
    for (end, read) in read.iter().enumerate() {
        let connection = &pair.ends[end];
        let other = pair.ends[1 - end].stats();
        let told = format!(
            "seed {seed}, end {end}: {:?}, other end {other:?}",
            connection.stats()
        );
        assert_eq!(connection.error(), None, "{told}");
        assert_eq!(connection.state(), State::Closed, "seed {seed}, end {end}");
        assert!(
            *read == data,
            "seed {seed}, end {end}: {} of {len} bytes",
            read.len()
        );
    }
}

#[test]
fn every_byte_arrives_both_ways_through_loss() {
    let config = Config::builder()
        .data_retries(60)
        .syn_retries(30)
        .user_timeout(None)
        .time_wait(Duration::from_secs(240))
        .linger(Duration::from_secs(3_600));
    let full = config.clone().build().unwrap();
    let bare = config
        .clone()
        .sack(false)
        .timestamps(false)
        .build()
        .unwrap();
    let tiny = config
        .receive_buffer(8_192)
        .send_buffer(8_192)
        .mss(600)
        .build()
        .unwrap();
    for seed in 1..=20 {
        for (config, loss) in [
            (&full, 0),
            (&full, 10),
            (&full, 30),
            (&bare, 20),
            (&tiny, 20),
        ] {
            transfer(config, seed, loss, 100_000);
        }
    }
}

/// Both sides fill the other's window to the last byte, close, and read only later.
#[test]
fn closing_behind_full_windows_is_quiet() {
    let config = Config::builder().receive_buffer(8_192).build().unwrap();
    let mut pair = Pair::new(&config, 1, 0);
    let data = pattern(0, 8_192);
    for end in 0..2 {
        assert_eq!(pair.ends[end].write(pair.now, &data), Ok(8_192));
        pair.ends[end].finish(pair.now).unwrap();
        pair.flush(end);
    }
    for _ in 0..1_000 {
        if !pair.step() {
            break;
        }
    }
    assert!(pair.sent < 100, "{} segments by {:?}", pair.sent, pair.now);
    for end in 0..2 {
        assert_eq!(pair.ends[end].finish_status(), Ok(true), "end {end}");
    }
}

/// The same with loss: the FIN may be what is missing.
#[test]
fn closing_behind_full_windows_gets_through_loss() {
    let config = Config::builder().receive_buffer(8_192).build().unwrap();
    for seed in 1..=50 {
        let mut pair = Pair::new(&config, seed, 30);
        for end in 0..2 {
            let data = pattern(0, 8_192);
            assert_eq!(pair.ends[end].write(pair.now, &data), Ok(8_192));
            pair.ends[end].finish(pair.now).unwrap();
            pair.flush(end);
        }
        while pair.step() && pair.sent < 1_000 {}
        assert!(pair.sent < 1_000, "seed {seed}: a storm by {:?}", pair.now);
        for end in 0..2 {
            assert_eq!(
                pair.ends[end].finish_status(),
                Ok(true),
                "seed {seed}, end {end}"
            );
        }
    }
}

/// The same with both FINs delivered and everything after them lost until both timers have expired.
#[test]
fn closing_behind_full_windows_survives_the_loss_of_both_acks() {
    let config = Config::builder()
        .receive_buffer(8_192)
        .linger(Duration::from_secs(3_600));
    let config = config.build().unwrap();
    let mut pair = Pair::new(&config, 1, 0);
    for end in 0..2 {
        let data = pattern(0, 8_192);
        assert_eq!(pair.ends[end].write(pair.now, &data), Ok(8_192));
        pair.flush(end);
    }
    let until = pair.now + Duration::from_secs(2);
    while pair.now < until && pair.step() {}
    for end in 0..2 {
        assert!(pair.ends[end].sender.is_all_data_acked());
        assert_eq!(pair.ends[end].sender.snd_wnd(), 0);
        pair.ends[end].finish(pair.now).unwrap();
        pair.flush(end);
    }
    // What is on its way arrives.
    pair.loss_percent = 100;
    let is_late = |end: &Connection| end.sender.recovery().consecutive_timeouts() > 0;
    while !pair.ends.iter().all(is_late) && pair.step() {}
    assert!(pair.ends.iter().all(|end| end.state() == State::Closing));
    pair.loss_percent = 0;
    let sent = pair.sent;
    while pair.sent < sent + 100 && pair.step() {}
    assert!(pair.sent < sent + 100, "a storm by {:?}", pair.now);
    for end in &pair.ends {
        assert_eq!(end.finish_status(), Ok(true));
    }
}
