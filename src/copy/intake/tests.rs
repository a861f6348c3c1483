//! What a session counts for, with frames of a sender that does not mean well.

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use super::super::disk::PlainDisk;
use super::super::store::{PlaceSettings, Spawner};
use super::super::tree_hash::{BLOCK_LEN, block_cv};
use super::*;

const MIB: u64 = 1 << 20;

struct IntakeTest {
    root: tempfile::TempDir,
    intake: Intake,
    next_id: u64,
}

impl IntakeTest {
    fn new(limits: IntakeLimits) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(root.path(), ambient_authority()).unwrap();
        let placer = Placer::new(
            Arc::new(dir),
            Arc::new(PlainDisk),
            PlaceSettings::default(),
            Arc::default(),
            Arc::default(),
            Spawner::new(|task| task()),
        );
        let recorder = Recorder::new(100, Box::new(|_| ()));
        let mut test = Self {
            root,
            intake: Intake::new(placer, recorder, limits),
            next_id: 0,
        };
        test.send(&[Frame::Options(Options::default())]);
        test
    }

    fn send(&mut self, frames: &[Frame]) -> Vec<Frame> {
        let mut bytes = Vec::new();
        for frame in frames {
            frame.encode(&mut bytes);
        }
        self.feed(bytes)
    }

    fn feed(&mut self, bytes: Vec<u8>) -> Vec<Frame> {
        let len = bytes.len();
        let step = self.intake.step(bytes, len);
        assert_eq!(step.result, Ok(false));
        let (mut decoder, mut bytes) = (Decoder::default(), step.replies.as_slice());
        let mut frames = Vec::new();
        while let Some(Item::Frame(frame)) = decoder.next(&mut bytes).unwrap() {
            frames.push(frame);
        }
        frames
    }

    /// Offers a file of so many blocks, and yields the answer.
    fn offer(&mut self, path: &str, blocks: u64) -> (u64, Frame) {
        let id = self.next_id;
        self.next_id += 1;
        let answer = self.send(&[Frame::File(FileOffer {
            id,
            attempt: 1,
            attempts: 5,
            size: blocks * MIB,
            attributes: Attributes::default(),
            tag: [1; 16],
            digest: None,
            path: path.into(),
        })]);
        (id, answer.into_iter().next().unwrap())
    }

    /// Sends so many blocks of zeros, and takes the file back.
    fn send_some(&mut self, id: u64, blocks: u64) {
        self.send(&[Frame::Content { id, from: 0 }]);
        for index in 0..blocks {
            let cv = block_cv(index, &vec![0; BLOCK_LEN]);
            self.send(&[Frame::Hole(MIB), Frame::Block(cv)]);
        }
        self.send(&[Frame::Withdraw(id, Withdrawal::Unreadable)]);
    }

    fn left(&self) -> usize {
        std::fs::read_dir(self.root.path()).unwrap().count()
    }
}

fn is_refused(answer: &Frame, expected: Refusal) -> bool {
    matches!(answer, Frame::Verdict(_, Verdict::Refused(refusal)) if *refusal == expected)
}

#[test]
fn what_is_kept_of_files_that_were_taken_back_counts() {
    let mut test = IntakeTest::new(IntakeLimits {
        max_files: u64::MAX,
        max_bytes: 12 * MIB,
    });
    let (id, answer) = test.offer("a", 10);
    assert!(matches!(answer, Frame::Need { .. }), "{answer:?}");
    test.send_some(id, 9);
    assert_eq!(test.left(), 2, "a part and its journal");
    let (_, answer) = test.offer("b", 5);
    assert!(is_refused(&answer, Refusal::TooManyBytes), "{answer:?}");
    let (_, answer) = test.offer("a", 10);
    let from = 8 * MIB;
    assert!(
        matches!(answer, Frame::Need { from: at, .. } if at == from),
        "{answer:?}"
    );
    let (_, answer) = test.offer("c", 2);
    assert!(matches!(answer, Frame::Need { .. }), "12 in all");
    let (_, answer) = test.offer("d", 1);
    assert!(is_refused(&answer, Refusal::TooManyBytes), "{answer:?}");
}

#[test]
fn parts_that_stay_count_as_files_once() {
    let mut test = IntakeTest::new(IntakeLimits {
        max_files: 2,
        max_bytes: u64::MAX,
    });
    for path in ["a", "a", "b"] {
        let (id, answer) = test.offer(path, 10);
        assert!(matches!(answer, Frame::Need { .. }), "{path}: {answer:?}");
        if answer
            == (Frame::Need {
                id,
                from: 0,
                stack: vec![],
            })
        {
            test.send_some(id, 4);
        } else {
            test.send(&[Frame::Withdraw(id, Withdrawal::Unreadable)]);
        }
    }
    assert_eq!(test.left(), 4);
    let (_, answer) = test.offer("c", 1);
    assert!(is_refused(&answer, Refusal::TooManyFiles), "{answer:?}");
}

#[test]
fn directories_on_the_way_are_bounded_too() {
    let mut test = IntakeTest::new(IntakeLimits {
        max_files: 3,
        max_bytes: u64::MAX,
    });
    let mut made = 0;
    for path in ["a/f", "b/f", "c/f", "d/f", "e/f"] {
        let (id, answer) = test.offer(path, 1);
        assert!(matches!(answer, Frame::Need { .. }), "{path}: {answer:?}");
        let answers = test.send(&[Frame::Content { id, from: 0 }]);
        made += u64::from(answers.is_empty());
        let is_too_many = |answer| is_refused(answer, Refusal::TooManyFiles);
        assert!(answers.iter().all(is_too_many), "{answers:?}");
        test.send(&[Frame::Withdraw(id, Withdrawal::Settled)]);
    }
    assert_eq!((made, test.left()), (3, 3));
}

#[test]
fn masses_of_questions_get_bounded_answers() {
    let mut test = IntakeTest::new(IntakeLimits::default());
    let (id, _) = test.offer("a", 20);
    test.send_some(id, 15);
    let (id, answer) = test.offer("a", 20);
    let mut one = Vec::new();
    answer.encode(&mut one);
    assert!(one.len() > 13, "longer than the question: {answer:?}");
    let mut questions = Vec::new();
    for _ in 0..20_000 {
        Frame::Ask(id).encode(&mut questions);
    }
    let len = questions.len();
    let step = test.intake.step(questions, len);
    assert_eq!(step.result, Ok(false));
    let bound = MAX_REPEATED..MAX_REPEATED + one.len();
    assert!(
        bound.contains(&step.replies.len()),
        "{}",
        step.replies.len()
    );
    assert_eq!(test.send(&[Frame::Ask(id)]), [answer]);
}
