//! Our side: the public API, on a UDP socket.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use reliable_udp::{ConnectionError, Endpoint, ReliableUdpListener, ReliableUdpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::kernel::Opening;
use super::script::{Ending, Read, Script, Side, Stream, Write};

/// Bytes of one read or write.
const CHUNK: usize = 64 * 1024;

/// What is ready to open a connection.
pub enum Opener {
    Connect,
    Accept(ReliableUdpListener),
    Both,
}

impl Opener {
    /// Prepares to open a connection from or to `port`.
    pub fn new(endpoint: &Endpoint, opening: Opening, port: u16) -> io::Result<Self> {
        match opening {
            Opening::Connect => Ok(Self::Connect),
            Opening::Accept => endpoint.listen(port).map(Self::Accept),
            Opening::Both => Ok(Self::Both),
        }
    }

    /// Opens the connection through the shim at `addr`.
    pub async fn open(
        self,
        endpoint: &Endpoint,
        addr: SocketAddr,
        port: u16,
        config: reliable_udp::Config,
    ) -> io::Result<ReliableUdpSocket> {
        match self {
            Self::Connect => endpoint.connect_with(addr, port, config).await,
            Self::Accept(listener) => listener.accept().await.map(|(socket, _)| socket),
            Self::Both => endpoint.rendezvous(addr, port).await,
        }
    }
}

/// Runs a script.
pub async fn play(mut socket: ReliableUdpSocket, script: &Script) -> Result<(), String> {
    let (tell, told) = oneshot::channel();
    let (reader, writer) = socket.split();
    let (wrote, read) = tokio::join!(
        write(writer, &script.writer, told),
        read(reader, &script.reader, tell)
    );
    wrote.map_err(|error| format!("our writer: {error}"))?;
    read.map_err(|error| format!("our reader: {error}"))?;
    let closed = match script.ending {
        Ending::Close => return socket.closed().await.map_err(|e| format!("our end: {e}")),
        Ending::Abort => {
            socket.abort();
            (socket.closed().await, ConnectionError::Aborted)
        }
        Ending::Reset => (socket.closed().await, ConnectionError::Reset),
    };
    match closed {
        (Err(error), wanted) if ConnectionError::from_io(&error) == Some(&wanted) => Ok(()),
        (got, wanted) => Err(format!("our end: {got:?} instead of {wanted}")),
    }
}

async fn write(
    mut writer: reliable_udp::WriteHalf<'_>,
    script: &[Write],
    read: oneshot::Receiver<()>,
) -> io::Result<()> {
    let mut sent = Stream::of(Side::We);
    let mut read = Some(read);
    for step in script {
        match *step {
            Write::Send(len) => {
                let end = sent.position + len;
                while sent.position < end {
                    let chunk = sent.next(CHUNK.min(end - sent.position));
                    writer.write_all(chunk).await?;
                    sent.position += chunk.len();
                }
            }
            Write::Finish => writer.shutdown().await?,
            Write::AfterReading => {
                let read = read.take().expect("the reader ends once");
                read.await.map_err(|_| ErrorKind::BrokenPipe)?;
            }
            Write::UntilReset => loop {
                let chunk = sent.next(CHUNK);
                match writer.write(chunk).await {
                    Ok(len) => sent.position += len,
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                    Err(error) => return Err(error),
                }
            },
        }
    }
    Ok(())
}

async fn read(
    mut reader: reliable_udp::ReadHalf<'_>,
    script: &[Read],
    done: oneshot::Sender<()>,
) -> io::Result<()> {
    let mut expected = Stream::of(Side::Kernel);
    let mut buffer = vec![0; CHUNK];
    for step in script {
        let (goal, end) = match *step {
            Read::Pause(time) => {
                tokio::time::sleep(time).await;
                continue;
            }
            Read::Take(len) => (expected.position + len, Some(expected.position + len)),
            Read::ToEnd(total) => (usize::MAX, Some(total)),
            Read::UntilReset => (usize::MAX, None),
        };
        while expected.position < goal {
            let room = CHUNK.min(goal - expected.position);
            match reader.read(&mut buffer[..room]).await {
                Ok(0) if end.is_none() => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(0) => break,
                Ok(len) => expected.check(&buffer[..len]).map_err(io::Error::other)?,
                Err(error) if end.is_none() && error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error),
            }
        }
        if end.is_some_and(|end| expected.position != end) {
            let got = expected.position;
            return Err(io::Error::other(format!("{step:?} ended at byte {got}")));
        }
    }
    let _ = done.send(());
    Ok(())
}

/// Waits until only TIME-WAIT is left of all connections, and counts these.
pub async fn settle(endpoint: &Endpoint, patience: Duration) -> Result<usize, String> {
    let idle = tokio::time::timeout(patience, endpoint.wait_idle()).await;
    let stats = endpoint.stats();
    idle.map_err(|_| format!("we still have {} connections", stats.connections))?;
    let faults = [
        ("dropped_malformed", stats.dropped_malformed),
        ("dropped_checksum", stats.dropped_checksum),
        ("dropped_foreign_address", stats.dropped_foreign_address),
        ("transport_send_errors", stats.transport_send_errors),
        ("transport_receive_errors", stats.transport_receive_errors),
    ];
    match faults.iter().find(|(_, count)| *count > 0) {
        Some((name, count)) => Err(format!("our endpoint: {name} is {count}")),
        None => Ok(stats.time_wait),
    }
}
