//! The races between the tasks that hold sockets and the driver's task: no event is missed by anybody who
//! waits for it, and nothing is left unsent.
//!
//! Everything runs as in an application, but for time, which stands still, and the peer, which answers
//! at once. A task that nobody wakes is a deadlock, which loom reports.

#[path = "../../src/driver/baton.rs"]
mod baton;
mod line;
#[path = "../../src/driver/sync.rs"]
#[allow(unused_imports, reason = "the driver's other parts use the rest")]
mod sync;
mod world;

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use loom::sync::atomic::{AtomicUsize, Ordering};
use reliable_udp::{Config, ConnectionError, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::baton::Baton;
use crate::line::PORT;
use crate::world::{World, block_on, check, config, model, model_with, poll_once, spawn};

/// The driver's registrations and those of the sockets, one direction each.
mod waiting {
    use super::*;

    #[test]
    fn a_reader_sees_what_arrives() {
        model(|mut world| {
            let mut socket = world.connect();
            world.line.peer_writes(b"data");
            let mut buf = [0; 8];
            // Another task has read before.
            assert!(poll_once(pin!(socket.read(&mut buf))).is_pending());
            let driver = world.task.start();
            assert_eq!(block_on(socket.read(&mut buf)).unwrap(), 4);
            driver.stop();
        });
    }

    #[test]
    fn a_peeker_sees_what_arrives() {
        model(|mut world| {
            let socket = world.connect();
            world.line.peer_writes(b"data");
            let driver = world.task.start();
            assert_eq!(block_on(socket.peek(&mut [0; 8])).unwrap(), 4);
            driver.stop();
        });
    }

    #[test]
    fn a_writer_sees_the_room_that_acknowledgments_make() {
        model(|mut world| {
            let mut socket = world.connect();
            world.line.hold();
            assert_eq!(block_on(socket.write(&[1; 4_096])).unwrap(), 4_096);
            assert!(poll_once(pin!(socket.write(b"more"))).is_pending());
            world.line.release();
            let driver = world.task.start();
            assert_eq!(block_on(socket.write(b"more")).unwrap(), 4);
            driver.stop();
        });
    }

    #[test]
    fn a_shutdown_sees_its_acknowledgment() {
        model(|mut world| {
            let mut socket = world.connect();
            world.line.hold();
            assert!(poll_once(pin!(socket.shutdown())).is_pending());
            world.line.release();
            let driver = world.task.start();
            block_on(socket.shutdown()).unwrap();
            driver.stop();
        });
    }

    #[test]
    fn a_connecting_task_sees_the_answer() {
        model(|world| {
            let driver = world.task.start();
            block_on(pin!(world.endpoint.connect(line::peer_addr()))).unwrap();
            driver.stop();
        });
    }

    #[test]
    fn one_who_waits_for_the_end_sees_a_reset() {
        model(|mut world| {
            let socket = world.connect();
            world.line.peer(|peer| {
                let id = peer.connections[0];
                peer.endpoint
                    .with_connection(Timestamp::ZERO, id, |connection| {
                        connection.abort(Timestamp::ZERO);
                    })
            });
            let driver = world.task.start();
            let error = block_on(socket.closed()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            driver.stop();
        });
    }

    /// The peer's SYN has arrived, or is about to.
    fn knock(world: &World) {
        world.line.peer(|peer| {
            let to = line::local_addr();
            peer.endpoint
                .connect(Timestamp::ZERO, to, PORT, None)
                .unwrap();
        });
    }

    #[test]
    fn an_acceptor_sees_a_connection() {
        model(|world| {
            let listener = world.endpoint.listen(PORT).unwrap();
            knock(&world);
            let driver = world.task.start();
            block_on(listener.accept()).unwrap();
            driver.stop();
        });
    }

    #[test]
    fn an_acceptor_by_poll_sees_a_connection() {
        model(|world| {
            let listener = world.endpoint.listen(PORT).unwrap();
            assert!(poll_once(std::future::poll_fn(|cx| listener.poll_accept(cx))).is_pending());
            knock(&world);
            let driver = world.task.start();
            block_on(std::future::poll_fn(|cx| listener.poll_accept(cx))).unwrap();
            driver.stop();
        });
    }

    #[test]
    fn one_who_waits_for_idleness_sees_the_last_connection_end() {
        model(|mut world| {
            let socket = world.connect();
            let driver = world.task.start();
            let other = spawn(move || socket.abort());
            block_on(world.endpoint.wait_idle());
            other.join().unwrap();
            driver.stop();
        });
    }
}

/// The driver goes, or is to go.
mod ending {
    use super::*;

    #[test]
    fn a_reader_sees_the_driver_vanish() {
        model(|mut world| {
            let mut socket = world.connect();
            let task = world.task;
            let runtime = spawn(move || task.abort());
            let error = block_on(socket.read(&mut [0])).unwrap_err();
            let reason = ConnectionError::from_io(&error);
            assert!(matches!(reason, Some(ConnectionError::EndpointClosed)));
            runtime.join().unwrap();
        });
    }

    #[test]
    fn an_acceptor_sees_the_driver_vanish() {
        model(|world| {
            let listener = world.endpoint.listen(PORT).unwrap();
            let task = world.task;
            let runtime = spawn(move || task.abort());
            assert!(block_on(listener.accept()).is_err());
            runtime.join().unwrap();
        });
    }

    #[test]
    fn the_driver_ends_after_the_last_handle() {
        model(|world| {
            let World { endpoint, task, .. } = world;
            let clone = endpoint.clone();
            // Something else may be going on.
            task.wake();
            let driver = task.start();
            let other = spawn(move || drop(clone));
            drop(endpoint);
            other.join().unwrap();
            driver.ended();
        });
    }

    #[test]
    fn the_driver_ends_after_the_last_connection() {
        model(|mut world| {
            let socket = world.connect();
            // The peer's stream has ended; ours ends with the socket, which lingers for the answer.
            let World { endpoint, task, .. } = world;
            drop(endpoint);
            let driver = task.start();
            drop(socket);
            driver.ended();
        });
    }
}

/// What is written leaves, whoever is at the transmitter.
mod sending {
    use super::*;

    /// The protocol alone, with memory as weak as the language allows.
    #[test]
    fn no_work_is_left_behind_by_a_turn() {
        check(|| {
            let shared = Arc::new((Baton::new(0), AtomicUsize::new(0)));
            let run = |shared: &(Baton<usize>, AtomicUsize)| {
                let (baton, work) = shared;
                work.fetch_add(1, Ordering::Relaxed);
                while let Some(turn) =
                    baton.take_turn(|done| *done += work.swap(0, Ordering::Relaxed))
                    && turn.is_asked
                {}
            };
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    spawn(move || run(&shared))
                })
                .collect();
            run(&shared);
            for other in others {
                other.join().unwrap();
            }
            let done = shared.0.take_turn(|done| *done).unwrap().outcome;
            assert_eq!(done, 3);
        });
    }

    #[test]
    fn two_writers_leave_nothing_behind() {
        model(|mut world| {
            let (mut one, mut two) = (world.connect(), world.connect());
            // The driver would see to what is left, were it woken by an answer or a first deadline.
            world.line.hold();
            block_on(one.write(b"1")).unwrap();
            block_on(two.write(b"2")).unwrap();
            world.task.run_until_quiet();
            let other = spawn(move || {
                block_on(two.write(b"two")).unwrap();
                two
            });
            block_on(one.write(b"one")).unwrap();
            let two = other.join().unwrap();
            world.task.run_until_quiet();
            assert_eq!(world.line.received(), 2 + 6);
            drop((one, two));
        });
    }

    #[test]
    fn a_writer_and_an_acknowledging_driver_leave_nothing_behind() {
        model(|mut world| {
            let mut socket = world.connect();
            world.line.peer_writes(b"data");
            world.line.hold();
            let before = world.line.sent();
            let driver = world.task.start();
            block_on(socket.write(b"data")).unwrap();
            driver.stop();
            assert_eq!(world.line.received(), 4);
            // The ACK of the peer's data rode on ours, or left alone.
            assert!(world.line.sent() > before);
        });
    }

    #[test]
    fn the_driver_waits_for_room_whoever_finds_the_transport_full() {
        model(|mut world| {
            let (mut one, mut two) = (world.connect(), world.connect());
            world.line.hold();
            world.line.fill();
            block_on(one.write(b"one")).unwrap();
            world.task.run_until_quiet();
            let driver = world.task.start();
            let line = Arc::clone(&world.line);
            let room = spawn(move || line.make_room());
            block_on(two.write(b"two")).unwrap();
            room.join().unwrap();
            driver.stop();
            assert_eq!(world.line.received(), 6);
        });
    }

    #[test]
    fn a_transport_that_fills_up_is_left_to_the_driver() {
        model(|mut world| {
            let (mut one, mut two) = (world.connect(), world.connect());
            world.line.hold();
            world.line.fill();
            let driver = world.task.start();
            let line = Arc::clone(&world.line);
            let other = spawn(move || {
                block_on(two.write(b"two")).unwrap();
                line.make_room();
                two
            });
            block_on(one.write(b"one")).unwrap();
            let two = other.join().unwrap();
            driver.stop();
            assert_eq!(world.line.received(), 6);
            drop(two);
        });
    }
}

/// The driver's sleep is never later than the earliest deadline.
mod sleeping {
    use super::*;

    const LONG: Duration = Duration::from_secs(5);

    /// Something sets a deadline of about a second while the driver falls asleep, or has.
    fn a_deadline_comes_up(mut world: World) {
        let mut socket = world.connect();
        world.line.cut();
        world.task.wake();
        let driver = world.task.start();
        block_on(socket.write(b"lost")).unwrap();
        world.task = driver.stop();
        let sent = world.line.sent();
        world.advance(LONG);
        world.task.run_until_quiet();
        assert!(world.line.sent() > sent, "nothing was sent again");
        drop(socket);
    }

    #[test]
    fn a_first_deadline_wakes_the_driver() {
        model(a_deadline_comes_up);
    }

    #[test]
    fn an_earlier_deadline_wakes_the_driver() {
        fn in_an_hour() -> Config {
            let hour = Duration::from_secs(3_600);
            config().to_builder().keepalive(Some(hour)).build().unwrap()
        }
        model_with(in_an_hour, a_deadline_comes_up);
    }
}

#[test]
fn a_lost_wake_up_is_a_failure() {
    let lost = std::panic::catch_unwind(|| check(|| block_on(std::future::pending::<()>())));
    assert!(lost.is_err());
    assert_eq!(poll_once(std::future::ready(1)), Poll::Ready(1));
}
