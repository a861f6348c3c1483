//! The kernel's side: blocking sockets in a namespace.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::ip::{KERNEL, PEER};
use super::script::{Ending, Read, Script, Side, Stream, Write};

/// Bytes of one read or write.
const CHUNK: usize = 64 * 1024;

/// How the connection comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    Connect,
    Accept,
    /// Both connect, from and to the same port.
    Both,
}

/// Tells whether this kernel has a congestion controller.
pub fn has_congestion(name: &str) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    setsockopt(&socket, sockopt::TcpCongestion, &name.into()).is_ok()
}

/// A socket that is ready to connect or listens already.
pub struct Opener {
    socket: Socket,
    opening: Opening,
    port: u16,
}

impl Opener {
    /// Prepares to open a connection from or to `port`.
    pub fn new(
        opening: Opening,
        port: u16,
        congestion: &str,
        receive_buffer: Option<usize>,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        setsockopt(&socket, sockopt::TcpCongestion, &congestion.into())?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if opening != Opening::Connect {
            socket.bind(&SocketAddr::from((KERNEL, port)).into())?;
        }
        if opening == Opening::Accept {
            socket.listen(1)?;
        }
        Ok(Self {
            socket,
            opening,
            port,
        })
    }

    /// Opens the connection.
    pub fn open(self, patience: Duration) -> io::Result<TcpStream> {
        let stream = if self.opening == Opening::Accept {
            self.socket.set_read_timeout(Some(patience))?;
            self.socket.accept()?.0
        } else {
            let peer = SocketAddr::from((PEER, self.port)).into();
            self.socket.connect_timeout(&peer, patience)?;
            self.socket
        };
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(stream.into())
    }
}

/// Runs a script.
pub fn play(stream: TcpStream, script: &Script) -> Result<(), String> {
    let (tell, told) = mpsc::channel();
    let (wrote, read) = std::thread::scope(|scope| {
        let writer = scope.spawn({
            let stream = &stream;
            move || write(stream, &script.writer, told)
        });
        let read = read(&stream, &script.reader, tell);
        (writer.join().unwrap(), read)
    });
    let wrote = wrote.map_err(|error| format!("kernel's writer: {error}"))?;
    let read = read.map_err(|error| format!("kernel's reader: {error}"))?;
    match script.ending {
        Ending::Abort => {
            let abort = Socket::from(stream);
            abort.set_linger(Some(Duration::ZERO)).unwrap();
        }
        // The kernel reports a reset once, to whoever comes first.
        Ending::Reset if !(wrote || read) => return Err("kernel: no reset reported".to_owned()),
        Ending::Close | Ending::Reset => {}
    }
    Ok(())
}

/// Tells whether a reset was reported.
#[expect(
    clippy::needless_pass_by_value,
    reason = "dropping an end tells the other half that this one has failed"
)]
fn write(mut stream: &TcpStream, script: &[Write], read: Receiver<()>) -> io::Result<bool> {
    let mut sent = Stream::of(Side::Kernel);
    let mut is_reset = false;
    for step in script {
        match *step {
            Write::Send(len) => {
                let end = sent.position + len;
                while sent.position < end {
                    let chunk = sent.next(CHUNK.min(end - sent.position));
                    stream.write_all(chunk)?;
                    sent.position += chunk.len();
                }
            }
            Write::Finish => stream.shutdown(Shutdown::Write)?,
            Write::AfterReading => read.recv().map_err(|_| ErrorKind::BrokenPipe)?,
            Write::UntilReset => loop {
                let chunk = sent.next(CHUNK);
                match stream.write(chunk) {
                    Ok(len) => sent.position += len,
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                        is_reset = true;
                        break;
                    }
                    Err(error) => return Err(error),
                }
            },
        }
    }
    Ok(is_reset)
}

/// Tells whether a reset was reported.
#[expect(
    clippy::needless_pass_by_value,
    reason = "dropping an end tells the other half that this one has failed"
)]
fn read(mut stream: &TcpStream, script: &[Read], done: Sender<()>) -> io::Result<bool> {
    let mut expected = Stream::of(Side::We);
    let mut buffer = vec![0; CHUNK];
    let mut is_reset = false;
    for step in script {
        let goal = match *step {
            Read::Pause(time) => {
                std::thread::sleep(time);
                continue;
            }
            Read::Take(len) => expected.position + len,
            Read::ToEnd(_) | Read::UntilReset => usize::MAX,
        };
        while expected.position < goal {
            let room = CHUNK.min(goal - expected.position);
            match stream.read(&mut buffer[..room]) {
                Ok(0) => break,
                Ok(len) => expected.check(&buffer[..len]).map_err(io::Error::other)?,
                Err(error) => match step {
                    Read::UntilReset if error.kind() == ErrorKind::ConnectionReset => {
                        is_reset = true;
                        break;
                    }
                    _ => return Err(error),
                },
            }
        }
        let end = match *step {
            Read::ToEnd(total) => total,
            _ => expected.position.min(goal),
        };
        if expected.position != end || (goal < usize::MAX && end < goal) {
            let got = expected.position;
            return Err(io::Error::other(format!("{step:?} ended at byte {got}")));
        }
    }
    let _ = done.send(());
    Ok(is_reset)
}
