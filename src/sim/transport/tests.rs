use std::io::IoSlice;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio_test::{assert_pending, assert_ready, task};

use super::{HOLD_BACK, INBOX_LIMIT, SimNetwork, SimTransport, pair};
use crate::driver::{DatagramTransport, RecvBuffer, RecvMeta, Transmit};
use crate::sim::clock::LazyClock;
use crate::sim::impaired::Impaired;
use crate::sim::link::LinkConfig;
use crate::timestamp::Timestamp;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 7))
}

fn send(from: &impl DatagramTransport, to: SocketAddr, payload: &[u8]) {
    from.try_send(&Transmit::new(to, &[IoSlice::new(payload)]))
        .unwrap();
}

fn send_train(from: &impl DatagramTransport, to: SocketAddr, payload: &[u8], stride: usize) {
    let contents = [IoSlice::new(payload)];
    let mut transmit = Transmit::new(to, &contents);
    transmit.segment_size = Some(stride);
    from.try_send(&transmit).unwrap();
}

/// Receives one buffer's worth.
async fn recv(at: &impl DatagramTransport) -> (Vec<u8>, RecvMeta) {
    let mut buffers = [RecvBuffer::new(65_536)];
    let filled = std::future::poll_fn(|cx| at.poll_recv(cx, &mut buffers))
        .await
        .unwrap();
    assert_eq!(filled, 1);
    let (bytes, meta) = buffers[0].received().unwrap();
    (bytes.to_vec(), meta)
}

async fn is_silent(at: &impl DatagramTransport, during: Duration) -> bool {
    tokio::time::timeout(during, recv(at)).await.is_err()
}

fn clean() -> LinkConfig {
    LinkConfig::default()
}

fn delayed(delay: Duration) -> LinkConfig {
    LinkConfig::builder().delay(delay).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_clean_pair_passes_trains_whole_and_without_time() {
    let (a, b) = pair(1, clean(), clean());
    let clock = LazyClock::default();
    assert_eq!(clock.now(), Timestamp::ZERO);
    send_train(&a, b.local_addr().unwrap(), &[7; 2_500], 1_000);
    let (bytes, meta) = recv(&b).await;
    assert_eq!(bytes, [7; 2_500]);
    assert_eq!(meta.stride, 1_000);
    assert_eq!(meta.remote, a.local_addr().unwrap());
    assert_eq!(meta.local_ip, Some(b.local_addr().unwrap().ip()));
    send(&b, meta.remote, b"back");
    assert_eq!(recv(&a).await.0, b"back");
    assert_eq!(clock.now(), Timestamp::ZERO);
    assert_eq!(a.send_stats().delivered, 3);
}

#[tokio::test]
async fn a_full_clean_pair_holds_the_sender_back_and_wakes_it() {
    let (a, b) = pair(1, clean(), clean());
    let to = b.local_addr().unwrap();
    let payload = vec![0; 64_000];
    let mut sent = 0;
    let contents = [IoSlice::new(&payload)];
    let transmit = Transmit::new(to, &contents);
    while a.try_send(&transmit).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, HOLD_BACK.div_ceil(64_000));
    let mut blocked = task::spawn(std::future::poll_fn(|cx| a.poll_send(cx, &transmit)));
    assert_pending!(blocked.poll());
    for _ in 0..sent {
        recv(&b).await;
    }
    assert!(blocked.is_woken());
    assert!(assert_ready!(blocked.poll()).is_ok());
    assert_eq!(b.overflows(), 0);
}

#[tokio::test]
async fn a_receiver_that_goes_away_releases_its_sender() {
    let (a, b) = pair(1, clean(), clean());
    let payload = vec![0; 64_000];
    let contents = [IoSlice::new(&payload)];
    let transmit = Transmit::new(b.local_addr().unwrap(), &contents);
    while a.try_send(&transmit).is_ok() {}
    let mut blocked = task::spawn(std::future::poll_fn(|cx| a.poll_send(cx, &transmit)));
    assert_pending!(blocked.poll());
    drop(b);
    assert!(blocked.is_woken());
    assert!(assert_ready!(blocked.poll()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn delay_is_virtual_time() {
    let (a, b) = pair(1, delayed(ms(40)), delayed(ms(60)));
    let clock = LazyClock::default();
    assert_eq!(clock.now(), Timestamp::ZERO);
    send(&a, b.local_addr().unwrap(), b"ping");
    recv(&b).await;
    assert_eq!(clock.now(), Timestamp::from_millis(40));
    send(&b, a.local_addr().unwrap(), b"pong");
    recv(&a).await;
    assert_eq!(clock.now(), Timestamp::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn an_earlier_arrival_wakes_a_sleeping_receiver() {
    let network = SimNetwork::new(1);
    let slow = network.attach(addr(1), delayed(ms(500)), clean());
    let fast = network.attach(addr(2), delayed(ms(5)), clean());
    let to = network.attach(addr(3), clean(), clean());
    let clock = LazyClock::default();
    assert_eq!(clock.now(), Timestamp::ZERO);
    send(&slow, addr(3), b"slow");
    let mut first = task::spawn(recv(&to));
    assert_pending!(first.poll());
    send(&fast, addr(3), b"fast");
    assert!(first.is_woken());
    assert_eq!(first.await.0, b"fast");
    assert_eq!(clock.now(), Timestamp::from_millis(5));
    assert_eq!(recv(&to).await.0, b"slow");
    assert_eq!(clock.now(), Timestamp::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn a_downlink_is_shared_by_its_senders() {
    let network = SimNetwork::new(1);
    // 1,000 bytes take 10 ms.
    let down = LinkConfig::builder().rate(100_000).build().unwrap();
    let to = network.attach(addr(9), clean(), down);
    let senders: Vec<SimTransport> = (1..=3)
        .map(|n| network.attach(addr(n), delayed(ms(u64::from(n))), clean()))
        .collect();
    let clock = LazyClock::default();
    assert_eq!(clock.now(), Timestamp::ZERO);
    for sender in senders.iter().rev() {
        send(sender, addr(9), &[0; 1_000]);
    }
    for (n, at) in [(1, 11), (2, 21), (3, 31)] {
        assert_eq!(recv(&to).await.1.remote, addr(n));
        assert_eq!(clock.now(), Timestamp::from_millis(at));
        let queue = to.recv_queue();
        let waiting = 3 - usize::from(n);
        assert_eq!((queue.datagrams, queue.bytes), (waiting, 1_000 * waiting));
        assert_eq!(queue.delay, ms(31 - at));
    }
    assert_eq!(to.recv_stats().delivered, 3);
}

#[tokio::test(start_paused = true)]
async fn an_unread_inbox_is_bounded() {
    let network = SimNetwork::new(1);
    let a = network.attach(addr(1), clean(), clean());
    let b = network.attach(addr(2), clean(), clean());
    let payload = vec![0; 64_000];
    let fitting = INBOX_LIMIT.div_ceil(64_000);
    for _ in 0..fitting + 5 {
        send(&a, addr(2), &payload);
    }
    assert_eq!(b.overflows(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_to_nobody_vanishes() {
    let network = SimNetwork::new(1);
    let a = network.attach(addr(1), clean(), clean());
    send(&a, addr(2), b"early");
    let b = network.attach(addr(2), clean(), clean());
    assert!(is_silent(&b, ms(100)).await);
    drop(b);
    send(&a, addr(2), b"late");
    assert!(is_silent(&a, ms(100)).await);
}

#[tokio::test(start_paused = true)]
async fn a_rebound_transport_is_seen_under_its_new_address() {
    let network = SimNetwork::new(1);
    let server = network.attach(addr(1), clean(), clean());
    let client = network.attach(addr(2), clean(), clean());
    client.rebind(addr(3));
    send(&client, addr(1), b"hello");
    assert_eq!(recv(&server).await.1.remote, addr(3));
    send(&server, addr(2), b"lost");
    send(&server, addr(3), b"found");
    assert_eq!(recv(&client).await.0, b"found");
    assert_eq!(client.local_addr().unwrap(), addr(2));
}

#[tokio::test(start_paused = true)]
async fn links_can_be_cut_and_mended() {
    let (a, b) = pair(1, clean(), clean());
    let cut = LinkConfig::builder().loss(1.0).build().unwrap();
    a.set_links(cut, clean());
    send(&a, b.local_addr().unwrap(), b"lost");
    a.set_links(clean(), clean());
    send(&a, b.local_addr().unwrap(), b"found");
    assert_eq!(recv(&b).await.0, b"found");
    assert_eq!(a.send_stats().lost_random, 1);
}

#[tokio::test(start_paused = true)]
async fn a_train_over_a_lossy_link_is_lost_datagram_by_datagram() {
    let lossy = LinkConfig::builder()
        .drop_nth(1)
        .delay(ms(1))
        .build()
        .unwrap();
    let (a, b) = pair(1, lossy, clean());
    send_train(&a, b.local_addr().unwrap(), &[7; 2_500], 1_000);
    assert_eq!(recv(&b).await.0.len(), 1_000);
    assert_eq!(recv(&b).await.0.len(), 500);
    assert!(is_silent(&b, ms(100)).await);
}

#[tokio::test]
async fn a_train_longer_than_the_buffer_fills_several() {
    let (a, b) = pair(1, clean(), clean());
    send_train(&a, b.local_addr().unwrap(), &[7; 5_000], 1_000);
    let mut buffers = [RecvBuffer::new(2_900), RecvBuffer::new(2_900)];
    let filled = std::future::poll_fn(|cx| b.poll_recv(cx, &mut buffers))
        .await
        .unwrap();
    assert_eq!(filled, 2);
    assert_eq!(buffers[0].received().unwrap().0.len(), 2_000);
    assert_eq!(buffers[1].received().unwrap().0.len(), 2_000);
    assert_eq!(recv(&b).await.0.len(), 1_000);
}

#[tokio::test]
async fn oversized_sends_are_refused() {
    let (a, b) = pair(1, clean(), clean());
    let payload = vec![0; 65_508];
    let contents = [IoSlice::new(&payload)];
    let mut transmit = Transmit::new(b.local_addr().unwrap(), &contents);
    assert!(a.try_send(&transmit).is_err());
    transmit.segment_size = Some(1_000);
    assert!(a.try_send(&transmit).is_err(), "more than 64 datagrams");
}

#[tokio::test(start_paused = true)]
async fn a_busy_receiver_takes_part_in_the_cooperative_budget() {
    let (a, b) = pair(1, clean(), clean());
    let to = b.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut exchange = pin!(async {
            for _ in 0..10_000 {
                send(&a, to, b"x");
                recv(&b).await;
            }
        });
        let mut polls = 0;
        std::future::poll_fn(|cx| {
            polls += 1;
            exchange.as_mut().poll(cx)
        })
        .await;
        polls
    });
    // Something is always there to receive, and yet the task yields.
    assert!(task.await.unwrap() > 1);
}

/// The wrapped transport is one side of a clean pair.
fn impaired(send: LinkConfig, recv: LinkConfig) -> (Impaired<SimTransport>, SimTransport) {
    let (a, b) = pair(1, clean(), clean());
    (Impaired::new(a, send, recv, 5), b)
}

#[tokio::test(start_paused = true)]
async fn an_unimpaired_transport_is_as_it_was() {
    let (a, b) = impaired(clean(), clean());
    send_train(&a, b.local_addr().unwrap(), &[7; 2_500], 1_000);
    assert_eq!(recv(&b).await.1.stride, 1_000);
    send_train(&b, a.local_addr().unwrap(), &[8; 2_500], 1_000);
    assert_eq!(recv(&a).await.0, [8; 2_500]);
    assert_eq!((a.send_stats().delivered, a.recv_stats().delivered), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn delayed_sends_leave_while_the_owner_waits_to_receive() {
    let (a, b) = impaired(delayed(ms(30)), delayed(ms(50)));
    let clock = LazyClock::default();
    assert_eq!(clock.now(), Timestamp::ZERO);
    let to = b.local_addr().unwrap();
    let mut waiting = pin!(recv(&a));
    // The owner already sleeps when the send comes.
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    send(&a, to, b"ping");
    let echo = async {
        let (bytes, meta) = recv(&b).await;
        assert_eq!(clock.now(), Timestamp::from_millis(30));
        send(&b, meta.remote, &bytes);
    };
    let ((), (bytes, _)) = tokio::join!(echo, waiting);
    assert_eq!(bytes, b"ping");
    assert_eq!(clock.now(), Timestamp::from_millis(80));
}

#[tokio::test(start_paused = true)]
async fn impairments_apply_in_both_directions() {
    let every_second = |n: u64| {
        LinkConfig::builder()
            .drop_nth(n)
            .drop_nth(n + 2)
            .build()
            .unwrap()
    };
    let (a, b) = impaired(every_second(0), every_second(1));
    for n in 0..4 {
        send(&a, b.local_addr().unwrap(), &[n]);
        send(&b, a.local_addr().unwrap(), &[n]);
    }
    assert_eq!((recv(&b).await.0, recv(&b).await.0), (vec![1], vec![3]));
    assert_eq!((recv(&a).await.0, recv(&a).await.0), (vec![0], vec![2]));
    assert!(is_silent(&a, ms(10)).await);
    assert!(is_silent(&b, ms(10)).await);
}

#[tokio::test(start_paused = true)]
async fn queues_can_be_looked_into() {
    // 1,000 bytes take 10 ms.
    let slow = LinkConfig::builder().rate(100_000).build().unwrap();
    let (a, b) = pair(1, slow.clone(), clean());
    send_train(&a, b.local_addr().unwrap(), &[0; 2_500], 1_000);
    assert_eq!(a.send_queue().delay, ms(25));
    tokio::time::advance(ms(10)).await;
    let queue = a.send_queue();
    assert_eq!((queue.datagrams, queue.bytes), (2, 1_500));

    let (a, b) = impaired(slow.clone(), slow);
    send(&a, b.local_addr().unwrap(), &[0; 3_000]);
    send(&b, a.local_addr().unwrap(), &[0; 2_000]);
    assert_eq!(a.recv_queue().bytes, 0);
    assert!(is_silent(&a, ms(10)).await);
    let (sending, receiving) = (a.send_queue(), a.recv_queue());
    assert_eq!((sending.bytes, sending.delay), (3_000, ms(20)));
    assert_eq!((receiving.bytes, receiving.delay), (2_000, ms(10)));
}

#[tokio::test]
async fn a_blocked_transport_below_keeps_the_order() {
    let jitter = LinkConfig::builder()
        .jitter(Duration::from_nanos(1))
        .build()
        .unwrap();
    let (a, b) = impaired(jitter, clean());
    let to = b.local_addr().unwrap();
    let mut payload = vec![0; 64_000];
    let mut sent = 0_u8;
    loop {
        payload[0] = sent;
        let contents = [IoSlice::new(&payload)];
        if a.try_send(&Transmit::new(to, &contents)).is_err() {
            break;
        }
        sent += 1;
    }
    let mut owner = task::spawn(recv(&a));
    assert_pending!(owner.poll());
    for n in 0..sent {
        assert_eq!(recv(&b).await.0[0], n);
        assert_pending!(owner.poll());
    }
}
