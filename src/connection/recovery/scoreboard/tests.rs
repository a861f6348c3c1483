use proptest::prelude::*;

use super::*;

const MSS: u64 = 1_000;

fn range(start: u64, end: u64) -> Range<Offset> {
    Offset::new(start)..Offset::new(end)
}

/// A scoreboard with segments of 1,000 bytes numbered from 0, the first at offset 0.
struct ScoreboardTest {
    board: Scoreboard,
}

impl ScoreboardTest {
    fn new(segments: u64) -> Self {
        let mut test = Self {
            board: Scoreboard::new(Offset::ZERO),
        };
        test.send(segments);
        test
    }

    fn send(&mut self, segments: u64) {
        let end = self.board.snd_nxt() + segments * MSS;
        self.board.on_sent(end, segments, SendSnapshot::default());
    }

    #[track_caller]
    fn ack(&mut self, segment: u64) -> u64 {
        let mut bytes = 0;
        self.board
            .acknowledge(Offset::new(segment * MSS), &mut |piece| {
                bytes += piece.len();
            });
        self.board.check_invariants();
        bytes
    }

    #[track_caller]
    fn sack(&mut self, start: u64, end: u64) -> u64 {
        let mut bytes = 0;
        let is_accepted = self
            .board
            .sack(range(start * MSS, end * MSS), &mut |piece| {
                bytes += piece.len();
            });
        assert!(is_accepted);
        self.board.check_invariants();
        bytes
    }

    #[track_caller]
    fn lose_below(&mut self, segment: u64) -> u64 {
        let mut bytes = 0;
        let frontier = Offset::new(segment * MSS);
        self.board
            .mark_lost_below(frontier, &mut |piece| bytes += piece.len());
        self.board.check_invariants();
        bytes
    }

    /// Sends the next lost range again, at most one segment of it.
    #[track_caller]
    fn expect_retransmission(&mut self, start: u64, end: u64) {
        let next = self.board.next_lost(MSS);
        assert_eq!(next, Some(range(start, end)));
        self.board
            .on_retransmitted(range(start, end), SendSnapshot::default());
        self.board.check_invariants();
    }

    #[track_caller]
    fn expect_pipe(&self, bytes: u64) {
        assert_eq!(self.board.pipe(), bytes, "pipe");
    }
}

#[test]
fn the_pipe_counts_as_the_rfc_does() {
    // RFC 6675 §4, SetPipe, on ten segments.
    let mut test = ScoreboardTest::new(10);
    test.expect_pipe(10_000);
    // 3..6 and 8 are SACKed: 6 left.
    assert_eq!(test.sack(3, 6), 3_000);
    assert_eq!(test.sack(8, 9), 1_000);
    test.expect_pipe(6_000);
    // Below 3 all is lost: 3 left.
    assert_eq!(test.lose_below(3), 3_000);
    test.expect_pipe(3_000);
    // One of them goes out again: 4.
    test.expect_retransmission(0, 1_000);
    test.expect_pipe(4_000);
    // Segment 6 is sent again though it is not lost (rule 3): it counts twice.
    assert_eq!(test.board.next_hole(MSS), Some(range(6_000, 7_000)));
    test.board
        .on_retransmitted(range(6_000, 7_000), SendSnapshot::default());
    test.expect_pipe(5_000);
    // Its original proves lost, together with segment 7: 5 - 1 - 1.
    assert_eq!(test.lose_below(8), 2_000);
    test.expect_pipe(3_000);
    // 0 is acknowledged, in its second copy: 2.
    assert_eq!(test.ack(1), 1_000);
    test.expect_pipe(2_000);
}

#[test]
fn a_lost_range_is_sent_again_once_in_order() {
    let mut test = ScoreboardTest::new(6);
    test.sack(2, 3);
    test.sack(4, 6);
    test.lose_below(4);
    test.expect_retransmission(0, 1_000);
    test.expect_retransmission(1_000, 2_000);
    test.expect_retransmission(3_000, 4_000);
    assert_eq!(test.board.next_lost(MSS), None);
    test.lose_below(4);
    assert_eq!(test.board.next_lost(MSS), None);
}

#[test]
fn neighbouring_lost_records_go_out_as_one_segment() {
    let mut test = ScoreboardTest {
        board: Scoreboard::new(Offset::ZERO),
    };
    for end in [100, 250, 600] {
        test.board
            .on_sent(Offset::new(end), 1, SendSnapshot::default());
    }
    test.board.mark_all_lost(&mut |_| {});
    assert_eq!(test.board.next_lost(200), Some(range(0, 200)));
    test.expect_retransmission(0, 600);
}

#[test]
fn a_partial_sack_and_a_partial_ack_split_records() {
    let mut test = ScoreboardTest::new(1);
    test.board.sack(range(300, 500), &mut |_| {});
    test.board.check_invariants();
    test.board.acknowledge(Offset::new(100), &mut |_| {});
    test.board.check_invariants();
    // 100..300 and 500..1000 are left.
    test.expect_pipe(700);
    test.board.mark_lost_below(Offset::new(300), &mut |_| {});
    test.expect_retransmission(100, 300);
}

#[test]
fn reneged_data_returns_to_the_scoreboard() {
    let mut test = ScoreboardTest::new(6);
    test.sack(1, 3);
    test.sack(4, 6);
    test.lose_below(4);
    assert_eq!(
        test.board.forget_reneged(SendSnapshot::default()),
        0,
        "nothing points to it"
    );
    // The cumulative ACK stops where a SACKed range begins.
    test.ack(1);
    assert_eq!(test.board.forget_reneged(SendSnapshot::default()), 4_000);
    test.board.check_invariants();
    test.board.mark_all_lost(&mut |_| {});
    test.board.check_invariants();
    test.expect_pipe(0);
    assert_eq!(test.board.next_lost(u64::MAX), Some(range(1_000, 6_000)));
}

#[test]
fn more_ranges_than_segments_are_refused() {
    // 20 segments outstanding and one-byte blocks: at most 20 + 64 ranges, whatever is claimed.
    let mut test = ScoreboardTest::new(20);
    let mut refused = 0;
    for at in (1..20_000).step_by(2) {
        refused += u64::from(!test.board.sack(range(at, at + 1), &mut |_| {}));
    }
    test.board.check_invariants();
    assert_eq!(test.board.sacked().len(), 84);
    assert_eq!(refused, 10_000 - 84);
    // A block that joins others is taken all the same.
    assert_eq!(test.sack(0, 10), 10_000 - 84);
    assert_eq!(test.board.sacked().len(), 1);
}

#[test]
fn an_honest_peer_is_never_refused() {
    // One-byte segments, every second one lost.
    let mut test = ScoreboardTest {
        board: Scoreboard::new(Offset::ZERO),
    };
    for end in 1..=10_000 {
        test.board
            .on_sent(Offset::new(end), 1, SendSnapshot::default());
    }
    for at in (1..10_000).step_by(2) {
        assert!(test.board.sack(range(at, at + 1), &mut |_| {}), "{at}");
    }
    assert_eq!(test.board.sacked().len(), 5_000);
}

#[test]
fn a_hundred_thousand_segments_with_alternating_holes_take_bounded_work() {
    const SEGMENTS: u64 = 100_000;
    // Sent in runs of 50 segments, as GSO does.
    let mut test = ScoreboardTest::new(0);
    for _ in 0..SEGMENTS / 50 {
        test.send(50);
    }
    let mut most = 0;
    let mut work = |test: &ScoreboardTest| most = most.max(test.board.touched.replace(0));
    work(&test);
    let mut lost = 0;
    for segment in (1..SEGMENTS).step_by(2) {
        let block = range(segment * MSS, (segment + 1) * MSS);
        test.board.sack(block, &mut |_| {});
        // DupThresh ranges above: everything below the third from the top is lost.
        if segment >= 5 {
            let frontier = Offset::new((segment - 4) * MSS);
            test.board.mark_lost_below(frontier, &mut |_| lost += 1);
        }
        if let Some(next) = test.board.next_lost(MSS) {
            test.board.on_retransmitted(next, SendSnapshot::default());
        }
        work(&test);
    }
    // The holes below the last boundary, which is the third from the top of 50,000 ranges.
    assert_eq!(lost, 49_998);
    // The same blocks once more, as lost ACKs make a receiver repeat them.
    for segment in (1..SEGMENTS).step_by(2) {
        test.board
            .sack(range(segment * MSS, (segment + 1) * MSS), &mut |_| {});
        work(&test);
    }
    // And the retransmissions are acknowledged one by one.
    for segment in (2..=SEGMENTS).step_by(2) {
        test.board
            .acknowledge(Offset::new(segment * MSS), &mut |_| {});
        work(&test);
    }
    assert_eq!(test.board.flight_size(), 0);
    // Per ACK: two cuts and a removal for the block, a cut and a record for the loss, two cuts and a record
    // for the retransmission.
    assert!(most <= 10, "{most} records touched by one event");
    test.board.check_invariants();
}

/// What the naive model knows of one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Byte {
    Acked,
    Sacked,
    Sent,
    Lost,
    Retransmitted,
    Doubled,
}

#[derive(Debug, Clone)]
enum Operation {
    Send(u64),
    Ack(u64),
    Sack(u64, u64),
    LoseBelow(u64),
    LoseFirst(u64),
    LoseAll,
    Retransmit(u64),
    RetransmitHole(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (1_u64..40).prop_map(Operation::Send),
        2 => (0_u64..120).prop_map(Operation::Ack),
        4 => (0_u64..120, 0_u64..30).prop_map(|(at, len)| Operation::Sack(at, len)),
        2 => (0_u64..120).prop_map(Operation::LoseBelow),
        1 => (1_u64..20).prop_map(Operation::LoseFirst),
        1 => Just(Operation::LoseAll),
        3 => (1_u64..20).prop_map(Operation::Retransmit),
        1 => (1_u64..20).prop_map(Operation::RetransmitHole),
    ]
}

fn bytes_of(range: &Range<Offset>) -> Range<usize> {
    let index = |offset: Offset| usize::try_from(offset.get()).unwrap();
    index(range.start)..index(range.end)
}

/// Applies an operation to the scoreboard and to the model.
fn apply(
    operation: &Operation,
    board: &mut Scoreboard,
    model: &mut Vec<Byte>,
    frontier: &mut Offset,
) {
    let una = board.snd_una();
    match *operation {
        Operation::Send(len) => {
            board.on_sent(board.snd_nxt() + len, 1, SendSnapshot::default());
            model.extend((0..len).map(|_| Byte::Sent));
        }
        Operation::Ack(ahead) => {
            board.acknowledge(una + ahead, &mut |_| {});
            bytes_of(&(Offset::ZERO..board.snd_una())).for_each(|byte| model[byte] = Byte::Acked);
        }
        Operation::Sack(ahead, len) => {
            let block = una + ahead..una + ahead + len;
            if board.sack(block.clone(), &mut |_| {}) {
                let end = block.end.min(board.snd_nxt());
                bytes_of(&(block.start.min(end)..end)).for_each(|byte| model[byte] = Byte::Sacked);
            }
        }
        Operation::LoseBelow(ahead) => {
            let bound = (una + ahead).min(board.snd_nxt());
            board.mark_lost_below(bound, &mut |_| {});
            if bound > *frontier {
                for byte in bytes_of(&(*frontier..bound)) {
                    model[byte] = original_lost(model[byte]);
                }
                *frontier = bound;
            }
        }
        Operation::LoseFirst(len) => {
            // The model stops at the record's end as the scoreboard does.
            let end = board
                .first_record()
                .map(|(start, record)| start..record.end.min(start + len));
            board.mark_first_lost(len, &mut |_| {});
            for byte in end.map(|range| bytes_of(&range)).into_iter().flatten() {
                model[byte] = original_lost(model[byte]);
            }
        }
        Operation::LoseAll => {
            board.mark_all_lost(&mut |_| {});
            for byte in model
                .iter_mut()
                .filter(|byte| !matches!(byte, Byte::Acked | Byte::Sacked))
            {
                *byte = Byte::Lost;
            }
        }
        Operation::Retransmit(max) | Operation::RetransmitHole(max) => {
            let is_lost = matches!(operation, Operation::Retransmit(_));
            let next = if is_lost {
                board.next_lost(max)
            } else {
                board.next_hole(max)
            };
            if is_lost {
                let first = model.iter().position(|&byte| byte == Byte::Lost);
                assert_eq!(next.as_ref().map(|next| bytes_of(next).start), first);
            }
            if let Some(next) = next {
                for byte in bytes_of(&next) {
                    let expected = if is_lost { Byte::Lost } else { Byte::Sent };
                    assert_eq!(model[byte], expected, "byte {byte}");
                    model[byte] = if is_lost {
                        Byte::Retransmitted
                    } else {
                        Byte::Doubled
                    };
                }
                board.on_retransmitted(next, SendSnapshot::default());
            }
        }
    }
}

fn original_lost(byte: Byte) -> Byte {
    match byte {
        Byte::Sent => Byte::Lost,
        Byte::Doubled => Byte::Retransmitted,
        Byte::Acked | Byte::Sacked | Byte::Lost | Byte::Retransmitted => byte,
    }
}

proptest! {
    #[test]
    fn agrees_with_a_model_of_single_bytes(operations in prop::collection::vec(operation(), 1..60)) {
        let mut board = Scoreboard::new(Offset::ZERO);
        let mut model = Vec::new();
        let mut frontier = Offset::ZERO;
        for operation in operations {
            apply(&operation, &mut board, &mut model, &mut frontier);
            board.check_invariants();
            let count = |wanted: Byte| model.iter().filter(|&&byte| byte == wanted).count() as u64;
            let pipe = count(Byte::Sent) + count(Byte::Retransmitted) + 2 * count(Byte::Doubled);
            prop_assert_eq!(board.pipe(), pipe);
            prop_assert_eq!(board.sacked().bytes(), count(Byte::Sacked));
            prop_assert_eq!(board.has_lost(), count(Byte::Lost) > 0);
            let outstanding = model.len() as u64 - count(Byte::Acked);
            prop_assert_eq!(board.flight_size(), outstanding);
        }
    }
}
