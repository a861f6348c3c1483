use std::future::poll_fn;
use std::io::IoSlice;

use super::*;
use crate::driver::RecvMeta;
use crate::endpoint::Ecn;

fn bind(addr: &str) -> io::Result<UdpTransport> {
    UdpTransport::bind(addr.parse().unwrap(), SocketBuffers::default())
}

fn loopback() -> UdpTransport {
    bind("127.0.0.1:0").unwrap()
}

async fn send(transport: &UdpTransport, transmit: Transmit<'_>) {
    poll_fn(|cx| transport.poll_send(cx, &transmit))
        .await
        .unwrap();
}

async fn receive(transport: &UdpTransport) -> Vec<(Vec<u8>, RecvMeta)> {
    let mut buffers: Vec<_> = (0..32).map(|_| RecvBuffer::new(65_536)).collect();
    let count = poll_fn(|cx| transport.poll_recv(cx, &mut buffers))
        .await
        .unwrap();
    buffers[..count]
        .iter()
        .map(|buffer| {
            buffer
                .received()
                .map(|(bytes, meta)| (bytes.to_vec(), meta))
                .unwrap()
        })
        .collect()
}

#[tokio::test]
async fn a_run_arrives_with_its_boundaries_mark_and_addresses() {
    let (a, b) = (loopback(), loopback());
    let bytes: Vec<u8> = (0..2_500_u32).map(|i| i.to_le_bytes()[0]).collect();
    let slices = [IoSlice::new(&bytes[..700]), IoSlice::new(&bytes[700..])];
    let mut transmit = Transmit::new(b.local_addr().unwrap(), &slices);
    transmit.segment_size = (a.max_send_segments() > 1).then_some(1_000);
    transmit.ecn = Some(Ecn::Ect0);
    transmit.local_ip = Some("127.0.0.1".parse().unwrap());
    send(&a, transmit).await;

    let mut datagrams = Vec::new();
    while datagrams.iter().map(Vec::len).sum::<usize>() < bytes.len() {
        for (train, meta) in receive(&b).await {
            assert_eq!(meta.remote, a.local_addr().unwrap());
            assert_eq!(meta.local_ip, Some("127.0.0.1".parse().unwrap()));
            assert_eq!(meta.ecn, Some(Ecn::Ect0));
            datagrams.extend(train.chunks(meta.stride).map(<[u8]>::to_vec));
        }
    }
    let size = transmit.segment_size.unwrap_or(bytes.len());
    assert_eq!(
        datagrams,
        bytes.chunks(size).map(<[u8]>::to_vec).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_run_is_gathered_from_its_slices_as_they_are() {
    let (a, b) = (loopback(), loopback());
    if a.max_send_segments() == 1 {
        return;
    }
    // Header and payload of each datagram, and more slices than the system takes.
    for slice_lens in [[20, 980].repeat(45), vec![10; 4_000]] {
        let len: usize = slice_lens.iter().sum();
        let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
        let mut rest = &bytes[..];
        let mut slices = Vec::new();
        for slice_len in slice_lens {
            let (slice, left) = rest.split_at(slice_len);
            slices.push(IoSlice::new(slice));
            rest = left;
        }
        let mut transmit = Transmit::new(b.local_addr().unwrap(), &slices);
        transmit.segment_size = Some(1_000);
        send(&a, transmit).await;
        let mut received = Vec::new();
        while received.len() < len {
            for (train, meta) in receive(&b).await {
                assert_eq!(meta.stride, 1_000);
                received.extend(train);
            }
        }
        assert!(received == bytes);
    }
    assert!(a.max_send_segments() > 1, "nothing was refused");
}

/// The kernel refuses more segments than it supports as drivers refuse what they cannot do.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn a_refused_run_leaves_as_single_datagrams() {
    let (a, b) = (loopback(), loopback());
    if a.max_send_segments() == 1 {
        return;
    }
    let bytes: Vec<u8> = (0..200_u8).flat_map(|i| [i; 10]).collect();
    let slices = [IoSlice::new(&bytes)];
    let mut transmit = Transmit::new(b.local_addr().unwrap(), &slices);
    transmit.segment_size = Some(10);
    send(&a, transmit).await;
    assert_eq!(a.max_send_segments(), 1, "segmentation stays off");

    let mut received = Vec::new();
    while received.len() < bytes.len() {
        for (datagram, meta) in receive(&b).await {
            assert_eq!(meta.stride, 10);
            received.extend(datagram);
        }
    }
    assert_eq!(received, bytes);
}

#[tokio::test]
async fn a_dual_stack_socket_reaches_ipv4_and_shows_plain_addresses() {
    let Ok(a) = bind("[::]:0") else {
        return;
    };
    let b = loopback();
    let slices = [IoSlice::new(b"hello")];
    send(&a, Transmit::new(b.local_addr().unwrap(), &slices)).await;
    let received = receive(&b).await;
    let remote = received[0].1.remote;
    assert_eq!(remote.port(), a.local_addr().unwrap().port());

    let mut answer = Transmit::new(remote, &slices);
    answer.local_ip = received[0].1.local_ip;
    send(&b, answer).await;
    let received = receive(&a).await;
    assert_eq!(received[0].1.remote, b.local_addr().unwrap());
    assert_eq!(received[0].1.local_ip, Some("127.0.0.1".parse().unwrap()));

    let mut again = Transmit::new(b.local_addr().unwrap(), &slices);
    again.local_ip = received[0].1.local_ip;
    send(&a, again).await;
    assert_eq!(receive(&b).await.len(), 1);
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn an_unused_port_is_reported_with_the_start_of_the_datagram() {
    for (local, nobody) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::]:0", "127.0.0.1:0")] {
        let Ok(transport) = bind(local) else {
            continue;
        };
        let unused = std::net::UdpSocket::bind(nobody)
            .and_then(|socket| socket.local_addr())
            .unwrap();
        let slices = [IoSlice::new(b"segment")];
        send(&transport, Transmit::new(unused, &slices)).await;
        let mut buffers = [RecvBuffer::new(65_536)];
        let report = poll_fn(|cx| {
            assert!(transport.poll_recv(cx, &mut buffers).is_pending());
            transport
                .take_unreachable()
                .map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        assert_eq!(report.remote, unused, "{local}");
        assert_eq!(&report.quoted[..], b"segment", "{local}");
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn an_icmp_error_costs_no_datagram_to_another_peer() {
    let (a, b) = (loopback(), loopback());
    let unused = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let slices = [IoSlice::new(b"segment")];
    send(&a, Transmit::new(unused, &slices)).await;
    send(&a, Transmit::new(b.local_addr().unwrap(), &slices)).await;
    assert_eq!(receive(&b).await[0].0, b"segment");
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn what_icmp_says_of_an_earlier_datagram_is_not_believed_of_the_next() {
    let transport = loopback();
    let slices = [IoSlice::new(&[7; 2_000])];
    let mut run = Transmit::new("127.0.0.1:9".parse().unwrap(), &slices);
    run.segment_size = Some(1_000);
    let send = |errors: usize, code: i32| {
        let refusals = Refusals::new(64);
        let mut calls = 0;
        let outcome = refusals.send(&run, |_| {
            transport.past_stale_errors(is_stale_error, || {
                calls += 1;
                if calls <= errors {
                    Err(io::Error::from_raw_os_error(code))
                } else {
                    Ok(())
                }
            })
        });
        (outcome, refusals.max_segments())
    };
    // EMSGSIZE, EPROTO, ENONET, EOPNOTSUPP, EHOSTDOWN
    for code in [90, 71, 64, 95, 112] {
        let (outcome, segments) = send(1, code);
        assert!(outcome.is_ok(), "{code}: {outcome:?}");
        assert_eq!(segments, 64, "{code} costs no segmentation");
        let (outcome, segments) = send(usize::MAX, code);
        assert_eq!(outcome.unwrap_err().raw_os_error(), Some(code));
        assert_eq!(segments, 64, "{code}");
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn a_long_error_queue_is_taken_in_turns() {
    const COUNT: usize = 2 * MAX_DRAINED + 10;
    let a = loopback();
    let unused = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    // A send reports and clears what the one before has left, so each is repeated until it leaves.
    let sender = SockRef::from(&*a.socket);
    for _ in 0..COUNT {
        while sender.send_to(b"segment", &unused.into()).is_err() {}
    }
    let mut buffers = [RecvBuffer::new(65_536)];
    let mut turns = 0;
    let mut taken = 0;
    poll_fn(|cx| {
        turns += 1;
        assert!(a.poll_recv(cx, &mut buffers).is_pending());
        let before = taken;
        taken += std::iter::from_fn(|| a.take_unreachable()).count();
        assert!(taken - before <= MAX_DRAINED, "{taken} after {before}");
        if taken < COUNT {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    assert!(turns >= 3);
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn what_a_full_socket_drops_is_counted() {
    const SENT: usize = 200;
    let buffers = SocketBuffers {
        receive: Some(4_096),
        ..SocketBuffers::default()
    };
    let b = UdpTransport::bind("127.0.0.1:0".parse().unwrap(), buffers).unwrap();
    let a = loopback();
    assert_eq!(
        b.stats().receive_buffer,
        Some(8_192),
        "twice what was asked"
    );
    assert!(a.stats().receive_buffer.unwrap() > 8_192);
    let slices = [IoSlice::new(&[0; 1_000])];
    for round in 1..=2 {
        for _ in 0..SENT {
            send(&a, Transmit::new(b.local_addr().unwrap(), &slices)).await;
        }
        // What is told comes with the first datagram after those that were dropped.
        let mut received = receive(&b).await.len();
        send(&a, Transmit::new(b.local_addr().unwrap(), &slices)).await;
        received += receive(&b).await.len();
        let drops = usize::try_from(b.stats().kernel_drops).unwrap();
        assert_eq!(drops, round * (SENT + 1 - received), "in round {round}");
        assert!(drops > 0);
    }
    assert_eq!(a.stats().kernel_drops, 0);
}

/// The portable calls do the same, so that a test of theirs need not wait for another system.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn the_portable_calls_send_and_receive_the_same() {
    let (a, b) = (loopback(), loopback());
    let sender = portable::Io::new(Arc::clone(&a.socket)).unwrap();
    let receiver = portable::Io::new(Arc::clone(&b.socket)).unwrap();
    // On Linux, timestamps leave no room for the mark.
    let timestamps = nix::sys::socket::sockopt::ReceiveTimestampns;
    nix::sys::socket::setsockopt(&*b.socket, timestamps, &false).unwrap();
    let bytes: Vec<u8> = (0..=250).cycle().take(2_500).collect();
    let slices = [IoSlice::new(&bytes[..700]), IoSlice::new(&bytes[700..])];
    let mut transmit = Transmit::new(b.local_addr().unwrap(), &slices);
    transmit.segment_size = Some(1_000);
    transmit.ecn = Some(Ecn::Ect1);
    assert!(sender.max_segments() > 1);
    sender.send(&transmit).unwrap();
    let mut buffers = [RecvBuffer::new(65_536)];
    assert_eq!(receiver.receive(&mut buffers).unwrap().filled, 1);
    let (received, meta) = buffers[0].received().unwrap();
    assert_eq!((received, meta.stride), (&bytes[..], 1_000));
    assert_eq!(meta.remote, a.local_addr().unwrap());
    assert_eq!(meta.ecn, Some(Ecn::Ect1));
    assert_eq!(meta.local_ip, Some("127.0.0.1".parse().unwrap()));
    assert_eq!(receiver.drops(), 0);
}

/// More at once than is worth one call each, of which some are runs.
#[tokio::test]
async fn many_datagrams_of_many_peers_arrive_as_they_were_sent() {
    let b = loopback();
    let peers: Vec<_> = (0..40).map(|_| loopback()).collect();
    for round in 0..5_u8 {
        for (index, peer) in peers.iter().enumerate() {
            let bytes = vec![round; 100 + index];
            let slices = [IoSlice::new(&bytes)];
            let mut transmit = Transmit::new(b.local_addr().unwrap(), &slices);
            transmit.ecn = (index % 2 == 0).then_some(Ecn::Ect0);
            transmit.segment_size = (index % 5 == 0 && peer.max_send_segments() > 1).then_some(60);
            send(peer, transmit).await;
        }
        let mut received = Vec::new();
        while received
            .iter()
            .map(|(bytes, _): &(Vec<u8>, _)| bytes.len())
            .sum::<usize>()
            < 4_780
        {
            received.extend(receive(&b).await);
        }
        for (index, peer) in peers.iter().enumerate() {
            let remote = peer.local_addr().unwrap();
            let of_peer = received.iter().filter(|(_, meta)| meta.remote == remote);
            let bytes: Vec<u8> = of_peer
                .clone()
                .inspect(|(_, meta)| {
                    assert_eq!(meta.ecn, (index % 2 == 0).then_some(Ecn::Ect0));
                    assert_eq!(meta.local_ip, Some("127.0.0.1".parse().unwrap()));
                })
                .flat_map(|(bytes, _)| bytes.clone())
                .collect();
            assert_eq!(bytes, vec![round; 100 + index]);
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_source_address_that_is_not_ours_is_left_out() {
    for local in ["0.0.0.0:0", "[::]:0"] {
        let (Ok(a), b) = (bind(local), loopback()) else {
            continue;
        };
        let slices = [IoSlice::new(b"segment")];
        let mut transmit = Transmit::new(b.local_addr().unwrap(), &slices);
        // RFC 5737 §3: nobody's.
        transmit.local_ip = Some("192.0.2.1".parse().unwrap());
        assert!(!a.stats().refuses_source);
        for _ in 0..2 {
            send(&a, transmit).await;
            let received = receive(&b).await;
            assert_eq!(received[0].1.remote.ip().to_string(), "127.0.0.1");
        }
        assert!(a.stats().refuses_source, "{local}");
        transmit.local_ip = Some("127.0.0.2".parse().unwrap());
        send(&a, transmit).await;
        let received = receive(&b).await;
        assert_eq!(received[0].1.remote.ip().to_string(), "127.0.0.2");
    }
}

/// Needs a network namespace and a TUN device in it, hence privileges; says so where it has none.
#[cfg(target_os = "linux")]
#[test]
fn a_datagram_larger_than_the_interface_takes_is_said_to_be_so() {
    const MTU: u16 = 1_500;
    /// Less 20 bytes of IP and 8 of UDP.
    const LARGEST: usize = 1_472;
    let test = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        let _device = tun_rs::DeviceBuilder::new()
            .name("narrow0")
            .ipv4("10.0.0.1", 24, None)
            .mtu(MTU)
            .build_sync()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let transport = bind("0.0.0.0:0")?;
            let peer = "10.0.0.2:9".parse().unwrap();
            let bytes = [7; 3 * (LARGEST + 1)];
            // The size of a datagram, how many, and whether they leave.
            let cases = [
                (LARGEST, 1, true),
                (LARGEST + 1, 1, false),
                (LARGEST + 1, 3, false),
                (LARGEST, 3, true),
            ];
            for (size, count, leaves) in cases {
                let slices = [IoSlice::new(&bytes[..size * count])];
                let mut transmit = Transmit::new(peer, &slices);
                transmit.segment_size = (count > 1).then_some(size);
                transmit.ecn = Some(Ecn::Ect0);
                let outcome = poll_fn(|cx| transport.poll_send(cx, &transmit)).await;
                let is_too_large = outcome.as_ref().is_err_and(Transmit::is_too_large);
                let seen = (outcome.is_ok(), is_too_large);
                assert_eq!(seen, (leaves, !leaves), "{count} of {size}: {outcome:?}");
            }
            let stats = transport.stats();
            assert!(!stats.refuses_segmentation && !stats.refuses_marks);
            io::Result::Ok(())
        })
    });
    if let Err(error) = test.join().unwrap() {
        eprintln!("not tested, no network namespace with a TUN device: {error}");
    }
}
