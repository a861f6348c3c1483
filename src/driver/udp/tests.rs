use std::future::poll_fn;
use std::io::IoSlice;

use super::*;
use crate::driver::RecvMeta;
use crate::endpoint::Ecn;

fn loopback() -> UdpTransport {
    UdpTransport::bind("127.0.0.1:0".parse().unwrap()).unwrap()
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
    let Ok(a) = UdpTransport::bind("[::]:0".parse().unwrap()) else {
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
        let Ok(transport) = UdpTransport::bind(local.parse().unwrap()) else {
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
