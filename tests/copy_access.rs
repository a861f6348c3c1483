//! Who may write: the shared secret, alone and over TLS, as a sender and a receiver meet it.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests, and the helpers between them"
)]

use std::fs;
use std::path::Path;

use reliable_udp::copy::{CopyError, Denial, Receiver, Report, Secret, Sender};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// Greeting and PROOF: all that a sender says to somebody who has not proved the secret.
const GREETING_AND_PROOF: usize = 16 + 5 + 64;

fn secret(text: &str) -> Secret {
    Secret::new(text).unwrap()
}

fn right() -> Secret {
    secret("the secret of the two sides")
}

/// A file to send, and a directory to send it to.
struct World {
    source: tempfile::TempDir,
    root: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let source = tempfile::tempdir().unwrap();
        fs::write(source.path().join("a file with a name"), "and content").unwrap();
        let root = tempfile::tempdir().unwrap();
        Self { source, root }
    }

    fn receiver(&self, secret: impl Into<Option<Secret>>) -> Receiver {
        let builder = Receiver::builder(self.root.path());
        match secret.into() {
            Some(secret) => builder.secret(secret).build().unwrap(),
            None => builder.build().unwrap(),
        }
    }

    async fn send(
        &self,
        secret: impl Into<Option<Secret>>,
        stream: &mut DuplexStream,
    ) -> Result<Report, CopyError> {
        self.send_bound(secret, Vec::new(), stream).await
    }

    async fn send_bound<S>(
        &self,
        secret: impl Into<Option<Secret>>,
        binding: Vec<u8>,
        stream: &mut S,
    ) -> Result<Report, CopyError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
    {
        let builder = Sender::builder().channel_binding(binding);
        let builder = match secret.into() {
            Some(secret) => builder.secret(secret),
            None => builder,
        };
        let sender = builder.build().unwrap();
        sender.send(stream, [self.source.path()]).await
    }

    #[track_caller]
    fn expect_nothing_written(&self) {
        let entries: Vec<_> = fs::read_dir(self.root.path()).unwrap().collect();
        assert!(entries.is_empty(), "{entries:?}");
    }

    #[track_caller]
    fn expect_copied(&self) {
        let name = self.source.path().file_name().unwrap();
        let copied = self.root.path().join(name).join("a file with a name");
        assert_eq!(fs::read_to_string(copied).unwrap(), "and content");
    }
}

fn denial(result: Result<Report, CopyError>) -> Option<Denial> {
    match result {
        Err(CopyError::Denied(denial)) => Some(denial),
        Err(other) => panic!("{other:?}"),
        Ok(_) => None,
    }
}

/// One session between two sides, each of which closes when it is done.
async fn meet(
    world: &World,
    sender: Option<Secret>,
    receiver: &Receiver,
) -> (Result<Report, CopyError>, Result<Report, CopyError>) {
    let (mut near, mut far) = duplex(64 * 1024);
    tokio::join!(
        async move { world.send(sender, &mut near).await },
        async move { receiver.receive(&mut far).await },
    )
}

#[tokio::test]
async fn only_the_same_secret_lets_a_copy_begin() {
    let wrong = || secret("the secret of somebody else");
    let (differ, lacks) = (Some(Denial::WrongSecret), Some(Denial::PeerWithoutSecret));
    let needs = Some(Denial::SecretNeeded);
    // The last is what the receiver says, if it is known to it.
    let cases = [
        ("both", Some(right()), Some(right()), None, Some(None)),
        ("none", None, None, None, Some(None)),
        (
            "another",
            Some(wrong()),
            Some(right()),
            differ,
            Some(differ),
        ),
        ("only the receiver", None, Some(right()), needs, Some(needs)),
        ("only the sender", Some(right()), None, lacks, None),
    ];
    for (name, ours, theirs, at_sender, at_receiver) in cases {
        let world = World::new();
        let (sent, received) = meet(&world, ours, &world.receiver(theirs)).await;
        assert_eq!(denial(sent), at_sender, "{name}");
        match at_receiver {
            Some(expected) => assert_eq!(denial(received), expected, "{name}"),
            None => assert!(received.is_err(), "{name}"),
        }
        if at_sender.is_none() {
            world.expect_copied();
        } else {
            world.expect_nothing_written();
        }
    }
}

#[tokio::test]
async fn a_denied_sender_learns_why() {
    for reason in [Denial::Busy, Denial::NotAllowed] {
        for (name, ours, theirs) in [
            ("no secret", None, None),
            ("both have one", Some(right()), Some(right())),
            ("the receiver has one", None, Some(right())),
        ] {
            let world = World::new();
            let receiver = world.receiver(theirs);
            let (mut near, mut far) = duplex(64 * 1024);
            let (sent, denied) =
                tokio::join!(async { world.send(ours, &mut near).await }, async move {
                    receiver.deny(&mut far, reason).await
                },);
            assert_eq!(denial(sent), Some(reason), "{name}");
            assert_eq!(denied, Err(CopyError::Denied(reason)), "{name}");
            world.expect_nothing_written();
        }
    }
}

/// Passes everything on both ways until both ends have closed, and returns what the client said.
async fn record(mut client: DuplexStream, mut server: DuplexStream) -> Vec<u8> {
    let (mut from_client, mut to_client) = tokio::io::split(&mut client);
    let (mut from_server, mut to_server) = tokio::io::split(&mut server);
    let mut said = Vec::new();
    let there = async {
        let mut buf = [0; 4096];
        loop {
            let read = from_client.read(&mut buf).await.unwrap();
            said.extend_from_slice(&buf[..read]);
            if read == 0 || to_server.write_all(&buf[..read]).await.is_err() {
                break;
            }
        }
        let _ = to_server.shutdown().await;
    };
    let back = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(there, back);
    said
}

#[tokio::test]
async fn a_whole_session_replayed_writes_nothing() {
    let world = World::new();
    let receiver = world.receiver(right());
    let (mut near, client) = duplex(64 * 1024);
    let (mut far, server) = duplex(64 * 1024);
    let (sent, received, said) = tokio::join!(
        async {
            let sent = world.send(right(), &mut near).await;
            drop(near);
            sent
        },
        async {
            let received = receiver.receive(&mut far).await;
            drop(far);
            received
        },
        record(client, server),
    );
    assert!(sent.is_ok() && received.is_ok(), "{sent:?} {received:?}");
    world.expect_copied();
    assert!(said.len() > GREETING_AND_PROOF);

    let elsewhere = World::new();
    let receiver = elsewhere.receiver(right());
    let (mut near, mut far) = duplex(64 * 1024);
    near.write_all(&said).await.unwrap();
    assert_eq!(
        denial(receiver.receive(&mut far).await),
        Some(Denial::WrongSecret)
    );
    elsewhere.expect_nothing_written();
}

#[tokio::test]
async fn nothing_is_named_to_somebody_who_has_not_proved_the_secret() {
    let world = World::new();
    let receiver = world.receiver(secret("the secret of somebody else"));
    let (mut near, client) = duplex(64 * 1024);
    let (mut far, server) = duplex(64 * 1024);
    let (sent, _, said) = tokio::join!(
        async {
            let sent = world.send(right(), &mut near).await;
            drop(near);
            sent
        },
        async {
            let received = receiver.receive(&mut far).await;
            drop(far);
            received
        },
        record(client, server),
    );
    assert_eq!(denial(sent), Some(Denial::WrongSecret));
    assert_eq!(said.len(), GREETING_AND_PROOF);
}

#[cfg(feature = "tls")]
mod over_tls {
    use reliable_udp::tls::{Acceptor, Connector};

    use super::*;

    fn acceptor() -> Acceptor {
        let made = rcgen::generate_simple_self_signed(["server".to_owned()]).unwrap();
        Acceptor::from_pem(made.cert.pem(), made.signing_key.serialize_pem()).unwrap()
    }

    async fn serve(
        receiver: Receiver,
        acceptor: &Acceptor,
        stream: DuplexStream,
    ) -> Result<Report, CopyError> {
        let mut stream = acceptor.accept(stream).await.unwrap();
        let receiver = receiver.with_channel_binding(stream.binding());
        receiver.receive(&mut stream).await
    }

    async fn ask(
        world: &World,
        connector: &Connector,
        stream: DuplexStream,
    ) -> Result<Report, CopyError> {
        let mut stream = connector.connect("server", stream).await.unwrap();
        let binding = stream.binding().to_vec();
        world.send_bound(right(), binding, &mut stream).await
    }

    #[tokio::test]
    async fn a_secret_inside_of_tls_lets_a_copy_begin() {
        let world = World::new();
        let acceptor = acceptor();
        let connector = Connector::pinned(acceptor.fingerprint()).unwrap();
        let (near, far) = duplex(64 * 1024);
        let (sent, received) = tokio::join!(
            ask(&world, &connector, near),
            serve(world.receiver(right()), &acceptor, far),
        );
        assert_eq!((denial(sent), denial(received)), (None, None));
        world.expect_copied();
    }

    /// Somebody in the middle whose certificate the client was talked into, and who passes the exchange
    /// on word by word between two TLS sessions.
    #[tokio::test]
    async fn proofs_cannot_be_passed_on_between_two_tls_sessions() {
        let world = World::new();
        let (honest, middle) = (acceptor(), acceptor());
        let deceived = Connector::pinned(middle.fingerprint()).unwrap();
        let to_server = Connector::pinned(honest.fingerprint()).unwrap();
        let (near, client) = duplex(64 * 1024);
        let (server, far) = duplex(64 * 1024);
        let relay = async {
            let (client, server) =
                tokio::join!(middle.accept(client), to_server.connect("server", server));
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        };
        let (sent, received, ()) = tokio::join!(
            ask(&world, &deceived, near),
            serve(world.receiver(right()), &honest, far),
            relay,
        );
        assert_eq!(denial(sent), Some(Denial::WrongSecret));
        assert_eq!(denial(received), Some(Denial::WrongSecret));
        world.expect_nothing_written();
    }
}

#[test]
fn a_secret_that_is_none_is_refused_when_it_is_read() {
    let missing = Path::new("/nonexistent/secret");
    assert!(matches!(
        Secret::from_file(missing),
        Err(CopyError::Secret(_))
    ));
}
