//! The socket: streams, ends, errors and cancellation, over loopback and over an in-memory line.

mod support;

use std::io::{self, ErrorKind, IoSlice};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use reliable_udp::{
    Config, ConnectionError, DropPolicy, Endpoint, ReliableUdpListener, ReliableUdpSocket, State,
    TimeoutCause,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use self::support::{MemoryPair, pair, pair_with, pattern, reason};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn an_echo_returns_what_was_written() {
    let (mut client, mut server) = pair().await;
    let echo = tokio::spawn(async move {
        let (mut reader, mut writer) = server.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        server.shutdown().await.unwrap();
    });
    let sent = pattern(100_000);
    client.write_all(&sent).await.unwrap();
    client.finish().unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert!(received == sent);
    echo.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_transfers_run_both_ways_at_once() {
    const LEN: usize = 8 * MIB;
    async fn run(socket: ReliableUdpSocket) {
        let (mut reader, mut writer) = socket.into_split();
        let write = tokio::spawn(async move {
            writer.write_all(&pattern(LEN)).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        reader.read_to_end(&mut received).await.unwrap();
        assert!(received == pattern(LEN));
        write.await.unwrap();
    }
    let (client, server) = pair().await;
    let (a, b) = tokio::join!(tokio::spawn(run(client)), tokio::spawn(run(server)));
    a.unwrap();
    b.unwrap();
}

#[tokio::test]
async fn a_half_closed_socket_still_reads() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = String::new();
    server.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");

    let answer = pattern(MIB);
    let (wrote, read) = tokio::join!(
        async {
            server.write_all(&answer).await?;
            server.shutdown().await
        },
        async {
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.map(|_| received)
        }
    );
    wrote.unwrap();
    assert!(read.unwrap() == answer);
}

#[tokio::test]
async fn both_sides_can_shut_down_at_once() {
    let (mut client, mut server) = pair().await;
    let (a, b) = tokio::join!(client.shutdown(), server.shutdown());
    a.unwrap();
    b.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    client.closed().await.unwrap();
    server.closed().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_the_peers_acknowledgment() {
    let mut pair = MemoryPair::new(Config::default(), Config::default()).await;
    pair.client.write_all(b"last words").await.unwrap();
    pair.client_line.cut(true);
    let mut shutdown = tokio_test::task::spawn(async move {
        pair.client.shutdown().await.unwrap();
        pair.client
    });
    assert!(shutdown.poll().is_pending());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(shutdown.poll().is_pending());

    pair.client_line.cut(false);
    shutdown.await;
    let mut received = String::new();
    pair.server.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "last words");
}

#[tokio::test(start_paused = true)]
async fn flush_does_not_wait_for_acknowledgments() {
    let mut pair = MemoryPair::new(Config::default(), Config::default()).await;
    pair.client_line.cut(true);
    pair.client.write_all(b"lost for now").await.unwrap();
    pair.client.flush().now_or_never().expect("ready").unwrap();
}

#[tokio::test]
async fn shutdown_can_be_repeated_and_ends_writing() {
    let (mut client, mut server) = pair().await;
    client.shutdown().await.unwrap();
    client.shutdown().await.unwrap();
    client.finish().unwrap();
    let error = client.write(b"more").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    let error = client
        .write_chunk(Bytes::from_static(b"more"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    server.write_all(b"still open").await.unwrap();
    client.read_exact(&mut [0; 10]).await.unwrap();
}

#[tokio::test]
async fn dropping_with_unread_data_resets_the_peer() {
    let (mut client, server) = pair().await;
    client.write_all(b"never read").await.unwrap();
    server.peek(&mut [0; 1]).await.unwrap();
    drop(server);
    let error = client.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(reason(&error), ConnectionError::Reset);
}

#[tokio::test]
async fn a_dropped_socket_delivers_in_the_background() {
    // The buffer takes everything at once.
    let config = Config::builder().buffer_tuning(false).build().unwrap();
    let endpoint = Endpoint::bind("127.0.0.1:0", config).await.unwrap();
    let listener = ReliableUdpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(endpoint.connect(addr), listener.accept());
    let (mut client, mut server) = (client.unwrap(), accepted.unwrap().0);

    let sent = pattern(3 * MIB);
    client.write_all(&sent).await.unwrap();
    drop(client);
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert!(received == sent);
    drop(server);
    endpoint.wait_idle().await;
}

#[tokio::test]
async fn a_drop_can_be_made_a_reset() {
    let config = Config::builder()
        .drop_policy(DropPolicy::Reset)
        .build()
        .unwrap();
    let (client, mut server) = pair_with(config.clone(), Config::default()).await;
    drop(client);
    let error = server.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    // The accepting side's policy holds for accepted sockets, the write half's drop counts too.
    let (mut client, server) = pair_with(Config::default(), config.clone()).await;
    let (reader, writer) = server.into_split();
    drop(writer);
    let error = client.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    drop(reader);

    // After shutdown there is nothing to cut.
    let (mut client, mut server) = pair_with(config, Config::default()).await;
    client.write_all(b"all of it").await.unwrap();
    client.shutdown().await.unwrap();
    drop(client);
    let mut received = String::new();
    server.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "all of it");
}

#[tokio::test]
async fn abort_breaks_both_sides() {
    let (mut client, mut server) = pair().await;
    let (read, ()) = tokio::join!(
        async {
            let mut reader = Box::pin(server.read_u8());
            reader.as_mut().await
        },
        async { client.abort() }
    );
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let error = client.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    assert_eq!(reason(&error), ConnectionError::Aborted);
    let error = client.write(b"x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    assert_eq!(
        client.flush().await.unwrap_err().kind(),
        ErrorKind::ConnectionAborted
    );
    assert_eq!(
        client.closed().await.unwrap_err().kind(),
        ErrorKind::ConnectionAborted
    );
}

#[tokio::test]
async fn a_virtual_port_that_nobody_listens_on_refuses() {
    let listener = ReliableUdpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::bind("127.0.0.1:0", Config::default())
        .await
        .unwrap();
    let addr = listener.local_addr().unwrap();
    let error = endpoint
        .connect_with(addr, 99, Config::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(reason(&error), ConnectionError::Refused);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_udp_port_that_nobody_has_refuses_at_once() {
    let unused = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = Config::builder()
        .connect_timeout(Some(Duration::from_secs(30)))
        .build()
        .unwrap();
    let error = ReliableUdpSocket::connect_with(unused, config)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn all_resolved_addresses_are_tried() {
    let listener = ReliableUdpListener::bind("127.0.0.1:0").await.unwrap();
    let unused = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let addrs = [unused, listener.local_addr().unwrap()];
    let client = ReliableUdpSocket::connect(&addrs[..]).await.unwrap();
    assert_eq!(client.peer_addr().unwrap(), addrs[1]);
}

#[tokio::test]
async fn halves_reunite_only_with_their_own() {
    let (mut client, server) = pair().await;
    let (other, _other_server) = pair().await;
    let (reader, writer) = server.into_split();
    let (other_reader, other_writer) = other.into_split();
    let error = reader.reunite(other_writer).unwrap_err();
    let (reader, other_writer) = (error.0, error.1);
    drop((other_reader, other_writer));
    let mut server = writer.reunite(reader).unwrap();
    server.write_all(b"one piece").await.unwrap();
    client.read_exact(&mut [0; 9]).await.unwrap();
}

#[tokio::test]
async fn dropping_the_owned_write_half_ends_the_stream() {
    let (client, mut server) = pair().await;
    let (mut reader, mut writer) = client.into_split();
    writer.write_all(b"bye").await.unwrap();
    drop(writer);
    let mut received = String::new();
    server.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "bye");
    server.write_all(b"heard").await.unwrap();
    reader.read_exact(&mut [0; 5]).await.unwrap();
}

#[tokio::test]
async fn a_forgotten_write_half_does_not_end_the_stream() {
    let (client, mut server) = pair().await;
    let (mut reader, writer) = client.into_split();
    writer.forget();
    server.write_all(b"ping").await.unwrap();
    reader.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(server.stats().state, State::Established);
    assert!(server.read(&mut [0; 1]).now_or_never().is_none());
    drop(reader);
    assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn peek_leaves_the_bytes_in_the_stream() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"look").await.unwrap();
    let mut buf = [0; 2];
    assert_eq!(server.peek(&mut buf).await.unwrap(), 2);
    assert_eq!(&buf, b"lo");
    let mut all = [0; 4];
    server.read_exact(&mut all).await.unwrap();
    assert_eq!(&all, b"look");
    client.finish().unwrap();
    assert_eq!(server.peek(&mut buf).await.unwrap(), 0);
}

#[tokio::test]
async fn a_vectored_write_takes_all_slices() {
    let (mut client, mut server) = pair().await;
    assert!(client.is_write_vectored());
    let slices = [
        IoSlice::new(b"one "),
        IoSlice::new(b""),
        IoSlice::new(b"two "),
    ];
    assert_eq!(client.write_vectored(&slices).await.unwrap(), 8);
    assert_eq!(client.write_vectored(&[]).await.unwrap(), 0);
    client.shutdown().await.unwrap();
    let mut received = String::new();
    server.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "one two ");
}

#[tokio::test]
async fn chunks_go_in_and_come_out() {
    let (mut client, mut server) = pair().await;
    let sent = Bytes::from(pattern(5 * MIB));
    let (wrote, read) = tokio::join!(
        async {
            client.write_chunk(sent.clone()).await?;
            client.finish()
        },
        async {
            let mut received = Vec::new();
            while let Some(chunk) = server.read_chunk(1_000_000).await? {
                assert!((1..=1_000_000).contains(&chunk.len()));
                received.extend_from_slice(&chunk);
            }
            Ok::<_, io::Error>(received)
        }
    );
    wrote.unwrap();
    assert!(read.unwrap() == sent);
    assert_eq!(server.read_chunk(1).await.unwrap(), None);
}

#[tokio::test]
async fn copy_bidirectional_ends_when_both_sides_have() {
    let (mut client, mut proxy_in) = pair().await;
    let (mut proxy_out, mut server) = pair().await;
    let proxy = tokio::spawn(async move {
        tokio::io::copy_bidirectional(&mut proxy_in, &mut proxy_out)
            .await
            .unwrap()
    });
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();
    let mut request = String::new();
    server.read_to_string(&mut request).await.unwrap();
    assert_eq!(request, "request");
    server.write_all(b"an answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "an answer");
    assert_eq!(proxy.await.unwrap(), (7, 9));
}

#[tokio::test]
async fn closed_resolves_when_both_directions_have_ended() {
    let (client, mut server) = pair().await;
    client.finish().unwrap();
    assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(client.closed().now_or_never().is_none());
    let (closed, shutdown) = tokio::join!(client.closed(), server.shutdown());
    closed.unwrap();
    shutdown.unwrap();
    server.closed().await.unwrap();

    let (client, server) = pair().await;
    let (closed, ()) = tokio::join!(client.closed(), async { server.abort() });
    assert_eq!(reason(&closed.unwrap_err()), ConnectionError::Reset);
}

#[tokio::test(start_paused = true)]
async fn dropped_futures_lose_nothing() {
    let config = Config::builder()
        .send_buffer(4096)
        .receive_buffer(4096)
        .build()
        .unwrap();
    let mut pair = MemoryPair::new(config.clone(), config).await;
    let sent = pattern(50_000);
    let mut written = 0;
    let mut received = Vec::new();
    let mut buf = [0; 1_000];
    while received.len() < sent.len() {
        // Every future is dropped after one poll, whether it was ready or not.
        if written < sent.len()
            && let Some(len) = pair.client.write(&sent[written..]).now_or_never()
        {
            written += len.unwrap();
        }
        pair.server.peek(&mut buf).now_or_never();
        if let Some(len) = pair.server.read(&mut buf).now_or_never() {
            received.extend_from_slice(&buf[..len.unwrap()]);
        }
        if let Some(chunk) = pair.server.read_chunk(10).now_or_never() {
            received.extend_from_slice(&chunk.unwrap().unwrap());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(received == sent);
    // A shutdown that was given up has still ended the stream.
    assert!(pair.client.shutdown().now_or_never().is_none());
    assert_eq!(pair.server.read(&mut buf).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn nagle_holds_small_writes_back_until_flushed_or_turned_off() {
    let mut pair = MemoryPair::new(Config::default(), Config::default()).await;
    pair.client_line.cut(true);
    pair.client.write_all(b"first").await.unwrap();
    let before = pair.client_line.sent();
    pair.client.write_all(b"second").await.unwrap();
    assert_eq!(
        pair.client_line.sent(),
        before,
        "held back while the first is unacknowledged"
    );
    pair.client.flush().await.unwrap();
    assert_eq!(pair.client_line.sent(), before + 1, "flushed");

    assert!(!pair.client.nodelay().unwrap());
    pair.client.write_all(b"third").await.unwrap();
    assert_eq!(pair.client_line.sent(), before + 1, "held back again");
    pair.client.set_nodelay(true).unwrap();
    assert!(pair.client.nodelay().unwrap());
    assert_eq!(pair.client_line.sent(), before + 2, "released");
    pair.client.write_all(b"fourth").await.unwrap();
    assert_eq!(pair.client_line.sent(), before + 3, "no longer held back");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_times_out_by_user_timeout() {
    let timeout = Duration::from_secs(3);
    let config = Config::builder()
        .user_timeout(Some(timeout))
        .build()
        .unwrap();
    let mut pair = MemoryPair::new(config, Config::default()).await;
    pair.server_line.cut(true);
    pair.client.write_all(b"anybody there?").await.unwrap();
    let error = pair.client.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let cause = TimeoutCause::UserTimeout(timeout);
    assert_eq!(reason(&error), ConnectionError::TimedOut(cause));
    let error = pair.client.write(b"x").await.unwrap_err();
    assert_eq!(reason(&error), ConnectionError::TimedOut(cause));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_times_out_by_keepalive() {
    let config = Config::builder()
        .keepalive(Some(Duration::from_secs(10)))
        .keepalive_interval(Duration::from_secs(1))
        .keepalive_probes(3)
        .build()
        .unwrap();
    let mut pair = MemoryPair::new(config, Config::default()).await;
    // While the peer answers, nothing ends.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(pair.client.read(&mut [0; 8]).now_or_never().is_none());
    pair.server_line.cut(true);
    let error = pair.client.read(&mut [0; 8]).await.unwrap_err();
    let cause = TimeoutCause::Keepalive { probes: 3 };
    assert_eq!(reason(&error), ConnectionError::TimedOut(cause));
}

#[tokio::test(start_paused = true)]
async fn nobody_answering_times_out_by_retries() {
    let (line, _nobody) = support::Memory::line();
    let config = Config::builder().syn_retries(2).build().unwrap();
    let endpoint = Endpoint::with_transport(line, config).unwrap();
    let error = endpoint.connect("10.0.0.2:2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let cause = TimeoutCause::SynRetries { retries: 2 };
    assert_eq!(reason(&error), ConnectionError::TimedOut(cause));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_causes_no_wake_ups() {
    let mut pair = MemoryPair::new(Config::default(), Config::default()).await;
    pair.client.write_all(b"some traffic").await.unwrap();
    pair.server.read_exact(&mut [0; 12]).await.unwrap();
    // Timers that the traffic had armed may still run out once.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let before = (pair.client_line.turns(), pair.server_line.turns());
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!((pair.client_line.turns(), pair.server_line.turns()), before);
    pair.client.write_all(b"awake").await.unwrap();
    pair.server.read_exact(&mut [0; 5]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_loss_after_a_long_silence_is_repaired_on_time() {
    let mut pair = MemoryPair::new(Config::default(), Config::default()).await;
    // No deadline is left that would wake the driver by chance.
    tokio::time::sleep(Duration::from_secs(600)).await;
    pair.client_line.cut(true);
    pair.client.write_all(b"lost").await.unwrap();
    pair.client_line.cut(false);
    let mut buf = [0; 4];
    let read = pair.server.read_exact(&mut buf);
    tokio::time::timeout(Duration::from_secs(2), read)
        .await
        .expect("sent again by the timer")
        .unwrap();
}

#[tokio::test]
async fn a_pending_read_is_woken_by_data_and_by_the_end() {
    let (mut client, mut server) = pair().await;
    let mut buf = [0; 16];
    let mut read = tokio_test::task::spawn(client.read(&mut buf));
    assert!(read.poll().is_pending());
    assert!(!read.is_woken());
    server.write_all(b"wake up").await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(read.await.unwrap(), 7);

    let mut read = tokio_test::task::spawn(client.read(&mut buf));
    assert!(read.poll().is_pending());
    server.finish().unwrap();
    assert_eq!(read.await.unwrap(), 0);
    assert_eq!(client.read(&mut buf).await.unwrap(), 0, "the end stays");
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_makes_writes_wait_until_there_is_room() {
    let config = Config::builder().send_buffer(4096).build().unwrap();
    let mut pair = MemoryPair::new(config, Config::default()).await;
    pair.client_line.cut(true);
    pair.client.write_all(&[1; 4096]).await.unwrap();
    {
        let mut write = tokio_test::task::spawn(pair.client.write(&[2; 100]));
        assert!(write.poll().is_pending());
        pair.client_line.cut(false);
        assert!(write.await.unwrap() > 0);
    }
    pair.client.finish().unwrap();
    let mut received = Vec::new();
    pair.server.read_to_end(&mut received).await.unwrap();
    assert!(received[..4096] == [1; 4096]);
}

#[tokio::test]
async fn the_socket_knows_its_addresses_and_ports() {
    let (client, server) = pair().await;
    assert_eq!(client.peer_addr().unwrap(), server.local_addr().unwrap());
    assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
    assert_eq!(client.peer_port().unwrap(), 1);
    assert_eq!(server.local_port().unwrap(), 1);
    assert_eq!(client.local_port().unwrap(), server.peer_port().unwrap());
    let shown = format!("{client:?}");
    assert!(
        shown.contains(&client.peer_addr().unwrap().to_string()),
        "{shown}"
    );
}

#[test]
fn a_vanished_runtime_ends_everything_with_an_error() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, _server) = runtime.block_on(pair());
    drop(runtime);
    let mut client = client;
    let mut read = tokio_test::task::spawn(client.read_u8());
    let std::task::Poll::Ready(Err(error)) = read.poll() else {
        panic!("still waiting")
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    assert_eq!(reason(&error), ConnectionError::EndpointClosed);
}

/// The trait objects that TLS and HTTP stacks want.
#[tokio::test]
async fn the_socket_fits_behind_trait_objects() {
    trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
    impl Stream for ReliableUdpSocket {}
    let (client, server) = pair().await;
    let mut ends: Vec<Box<dyn Stream>> = vec![Box::new(client), Box::new(server)];
    ends[0].write_all(b"boxed").await.unwrap();
    ends[1].read_exact(&mut [0; 5]).await.unwrap();
}

/// A peer whose process exited after its own `shutdown` answers our FIN with ICMP only.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn shutdown_does_not_linger_for_a_peer_that_finished_and_is_gone() {
    let listener = ReliableUdpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut client = ReliableUdpSocket::connect(addr).await.unwrap();
            client.write_all(b"all I had to say").await.unwrap();
            client.shutdown().await.unwrap();
            client
        })
    });
    let (mut server, _) = listener.accept().await.unwrap();
    let mut received = String::new();
    server.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "all I had to say");
    let client = tokio::task::spawn_blocking(|| process.join().unwrap());
    drop(client.await.unwrap());
    tokio::time::timeout(Duration::from_secs(10), server.shutdown())
        .await
        .expect("at once")
        .unwrap();
    server.closed().await.unwrap();
}

#[tokio::test]
async fn a_runtime_that_stops_resets_its_peers() {
    let listener = ReliableUdpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    // A reset that overtakes the handshake's last ACK would leave nothing to accept.
    let (accepted, is_accepted) = std::sync::mpsc::channel();
    let client = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let socket = runtime.block_on(ReliableUdpSocket::connect(addr)).unwrap();
        is_accepted.recv().unwrap();
        drop(runtime);
        socket
    });
    let (mut socket, _) = listener.accept().await.unwrap();
    accepted.send(()).unwrap();
    let reading = tokio::time::timeout(Duration::from_secs(20), async move {
        socket.read(&mut [0; 8]).await
    });
    let error = reading
        .await
        .expect("the peer says that it is gone")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    client.join().unwrap();
}
