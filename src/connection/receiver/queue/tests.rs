use super::*;

/// Payload of `len` bytes in a buffer of its own.
fn datagram(len: usize, byte: u8) -> Bytes {
    Bytes::from(vec![byte; len])
}

#[track_caller]
fn backlog(queue: &ReceiveQueue) -> &Backlog {
    queue.backlog.as_ref().expect("something to read")
}

fn push(queue: &mut ReceiveQueue, data: &Bytes) {
    assert_eq!(queue.push(data, data), data.len() as u64);
    queue.check_invariants();
}

#[test]
fn a_large_payload_is_handed_out_without_a_copy() {
    let mut queue = ReceiveQueue::default();
    let data = datagram(1_000, 7);
    push(&mut queue, &data);
    let chunk = queue.read_chunk(usize::MAX).expect("readable");
    assert_eq!(chunk.as_ptr(), data.as_ptr());
    assert_eq!(chunk, data);
    queue.check_invariants();
    assert_eq!(queue.memory(), 0);
}

#[test]
fn small_payloads_and_payloads_from_elsewhere_are_copied() {
    for (name, payload, datagram) in [
        ("small", datagram(511, 1), None),
        ("elsewhere", datagram(1_000, 1), Some(datagram(1_000, 2))),
    ] {
        let mut queue = ReceiveQueue::default();
        queue.push(&payload, datagram.as_ref().unwrap_or(&payload));
        let chunk = queue.read_chunk(usize::MAX).expect("readable");
        assert_ne!(chunk.as_ptr(), payload.as_ptr(), "{name}");
        assert_eq!(chunk, payload, "{name}");
        queue.check_invariants();
    }
}

#[test]
fn a_train_is_charged_once_until_its_last_slice_is_read() {
    let mut queue = ReceiveQueue::default();
    let train = datagram(20_000, 3);
    for part in 0..20 {
        queue.push(&train[part * 1_000..(part + 1) * 1_000], &train);
    }
    for left in (0..20).rev() {
        assert_eq!(backlog(&queue).pinned, PIN_SPAN, "{left} left");
        assert_eq!(queue.read(&mut [0; 1_000]), 1_000);
        queue.check_invariants();
    }
    assert!(queue.is_empty());
}

#[test]
fn a_small_datagram_is_charged_by_its_length_wherever_it_lies() {
    let mut queue = ReceiveQueue::default();
    let neighbours = datagram(4_000, 3);
    for part in 0..4 {
        push(
            &mut queue,
            &neighbours.slice(part * 1_000..(part + 1) * 1_000),
        );
        assert_eq!(backlog(&queue).pinned, (part + 1) * 1_000);
    }
    queue.check_invariants();
}

#[test]
fn pinned_buffers_are_bounded() {
    let mut queue = ReceiveQueue::default();
    // Buffers of 64 KiB of which the payload is a small part, as when trains are mixed.
    let buffers: Vec<_> = (0..100).map(|_| datagram(PIN_SPAN, 9)).collect();
    for buffer in &buffers {
        queue.push(&buffer[..1_000], buffer);
    }
    assert_eq!(queue.len(), 100_000);
    // 4 pinned buffers; 96,000 bytes copied into chunks, of which the last is not full.
    assert_eq!(backlog(&queue).pinned, PIN_LIMIT);
    let entries = backlog(&queue).entries.capacity() * size_of::<Entry>();
    assert!(
        queue.memory() - entries <= PIN_LIMIT + 96_000 + CHUNK_MAX,
        "{}",
        queue.memory()
    );
    let mut out = vec![0; 200_000];
    assert_eq!(queue.read(&mut out), 100_000);
    assert!(out[..100_000].iter().all(|&byte| byte == 9));
    queue.check_invariants();
}

#[test]
fn chunks_are_recycled_under_a_standing_backlog() {
    let mut queue = ReceiveQueue::default();
    let mut buf = [0; 400];
    for _ in 0..500 {
        queue.copy(&[5; 400]);
    }
    let mut recycled = 0;
    let mut peak = queue.memory();
    for _ in 0..5_000 {
        let spare = backlog(&queue).spare.is_some();
        queue.copy(&[5; 400]);
        if spare && backlog(&queue).spare.is_none() {
            recycled += 1;
            assert_eq!(backlog(&queue).tail_cost, CHUNK_MAX);
        }
        assert_eq!(queue.read(&mut buf), 400);
        peak = peak.max(queue.memory());
    }
    // 2,000,000 bytes went through; the first 200,000 were read from smaller chunks in part.
    assert!(recycled >= 25, "{recycled} chunks recycled");
    // 200,000 bytes of backlog are 4 chunks; one is being filled and one is spare.
    assert!(peak <= 200_000 + 3 * CHUNK_MAX, "{peak}");
    queue.check_invariants();
}

#[test]
fn an_idle_queue_holds_little() {
    let mut queue = ReceiveQueue::default();
    for _ in 0..1_000 {
        queue.copy(&[1; 100]);
        push(&mut queue, &datagram(600, 1));
    }
    assert_eq!(queue.read(&mut vec![0; 1_000_000]), 700_000);
    assert_eq!(queue.memory(), 0);
    let train = datagram(PIN_SPAN, 1);
    for part in 0..100 {
        push(&mut queue, &train.slice(part * 600..(part + 1) * 600));
    }
    assert_eq!(queue.read(&mut vec![0; 60_000]), 60_000);
    assert_eq!(queue.memory(), 0);
    for _ in 0..1_000 {
        queue.copy(&[1; 100]);
        queue.read(&mut [0; 100]);
    }
    assert_eq!(queue.memory(), 0);
    queue.check_invariants();
}

#[test]
fn peek_leaves_the_bytes_and_crosses_entries() {
    let mut queue = ReceiveQueue::default();
    queue.copy(b"abc");
    queue.push_owned(Bytes::from_static(b"def"), 3);
    queue.copy(b"ghi");
    let mut buf = [0; 8];
    assert_eq!(queue.peek(&mut buf), 8);
    assert_eq!(&buf, b"abcdefgh");
    assert_eq!(queue.read(&mut buf[..4]), 4);
    assert_eq!(queue.peek(&mut buf), 5);
    assert_eq!(&buf[..5], b"efghi");
    assert_eq!(queue.read_chunk(1).as_deref(), Some(&b"e"[..]));
    assert_eq!(queue.read_chunk(9).as_deref(), Some(&b"f"[..]));
    assert_eq!(queue.read_chunk(9).as_deref(), Some(&b"ghi"[..]));
    assert_eq!(queue.read_chunk(9), None);
    queue.check_invariants();
}

#[test]
fn a_discarded_queue_takes_nothing_more() {
    let mut queue = ReceiveQueue::default();
    push(&mut queue, &datagram(5_000, 1));
    queue.copy(&[1; 100]);
    queue.discard();
    assert_eq!(queue.copy(&[1; 100]), 0);
    assert_eq!(queue.push(&[1; 1_000], &Bytes::new()), 0);
    assert_eq!(queue.push_owned(Bytes::from_static(b"x"), 1), 0);
    assert!(queue.is_empty() && queue.is_discarding());
    queue.check_invariants();
}
