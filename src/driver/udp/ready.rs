//! Waiting for a socket: until something has arrived, until there is room, until an error is queued.

#[cfg(any(test, not(unix)))]
mod portable;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub(super) use self::portable::{Readiness, Socket};
#[cfg(unix)]
pub(super) use self::unix::{Readiness, Socket};

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::io;
    use std::task::Poll;

    use socket2::SockRef;
    use tokio_test::{assert_pending, assert_ready_ok, task};

    /// The same for every way to wait.
    macro_rules! waits {
        ($name:ident, $way:ident) => {
            #[tokio::test]
            async fn $name() {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_nonblocking(true).unwrap();
                let to = socket.local_addr().unwrap();
                let (ready, socket) = super::$way::Readiness::new(socket).unwrap();
                let socket = SockRef::from(&*socket);
                let receive = |is_drained: bool| {
                    let socket = &socket;
                    move || {
                        let mut buf = [std::mem::MaybeUninit::uninit(); 8];
                        let (len, _) = socket.recv_from(&mut buf)?;
                        Ok((len, is_drained))
                    }
                };
                peer.send_to(b"abc", to).unwrap();
                peer.send_to(b"de", to).unwrap();
                let first = poll_fn(|cx| ready.poll_arrival(cx, receive(false))).await;
                assert_eq!(first.unwrap(), 3);
                let mut second = task::spawn(poll_fn(|cx| ready.poll_arrival(cx, receive(true))));
                assert_eq!(assert_ready_ok!(second.poll()), 2);
                // Said to be drained: not even asked again, until something arrives.
                let untouched = || -> io::Result<(usize, bool)> { panic!("asked an empty socket") };
                let mut third = task::spawn(poll_fn(|cx| ready.poll_arrival(cx, untouched)));
                assert_pending!(third.poll());
                peer.send_to(b"f", to).unwrap();
                let third = poll_fn(|cx| ready.poll_arrival(cx, receive(true))).await;
                assert_eq!(third.unwrap(), 1);
                // There is room, and nobody waits for it afterwards.
                poll_fn(|cx| ready.poll_room(cx)).await.unwrap();
                ready.on_room();
                let mut error = Box::pin(ready.error());
                let is_pending =
                    poll_fn(|cx| Poll::Ready(error.as_mut().poll(cx).is_pending())).await;
                assert!(is_pending, "no error came");
            }
        };
    }

    #[cfg(unix)]
    waits!(by_the_descriptor, unix);
    waits!(by_the_runtime_s_own_socket, portable);
}
