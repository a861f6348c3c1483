//! The participants of a simulated world: a bare `Connection`, or an `Endpoint` with many.

#![allow(
    unreachable_pub,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    reason = "public only within `internals`, which some builds leave out and semver does not bind"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::Config;
use crate::connection::{Connection, OpenParams, State};
use crate::ecn::Ecn;
use crate::endpoint::{Arrival, ConnectionId, Endpoint, EndpointEvent, EndpointLocal, Secrets};
use crate::error::EndpointError;
use crate::sim::application::{Application, Plan};
use crate::sim::network::{Activity, Node, Outgoing, Train};
use crate::sim::rng::Rng;
use crate::timestamp::Timestamp;
use crate::wire::{Flags, Segment};

/// One connection without an endpoint around it: no demultiplexing, no RST for strays.
#[derive(Debug)]
pub struct ConnectionNode {
    peer: SocketAddr,
    config: Arc<Config>,
    params: OpenParams,
    connection: Option<Connection>,
    application: Application,
}

impl ConnectionNode {
    /// Makes one that connects to `peer` at once.
    pub fn connect(
        peer: SocketAddr,
        config: Config,
        params: OpenParams,
        application: Application,
    ) -> Self {
        let mut node = Self::listen(peer, config, params, application);
        let config = Arc::clone(&node.config);
        node.connection = Some(Connection::connect(Timestamp::ZERO, config, &node.params));
        node
    }

    /// Makes one that waits for the SYN of `peer`.
    pub fn listen(
        peer: SocketAddr,
        config: Config,
        params: OpenParams,
        application: Application,
    ) -> Self {
        let config = Arc::new(config);
        Self {
            peer,
            config,
            params,
            connection: None,
            application,
        }
    }

    /// Returns the connection, if it was made.
    pub fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    /// Returns the application.
    pub fn application(&self) -> &Application {
        &self.application
    }

    fn handle_datagram(&mut self, now: Timestamp, datagram: &Bytes, ecn: Option<Ecn>) {
        let Ok(segment) = Segment::decode(datagram) else {
            return;
        };
        let flags = segment.header.flags;
        let expected = match &self.connection {
            Some(connection) => connection.expected_integrity(flags),
            None => None,
        };
        let is_intact = match expected {
            Some(integrity) => segment.verify(integrity),
            None => segment.integrity().is_some(),
        };
        if !is_intact {
            return;
        }
        match &mut self.connection {
            Some(connection) => {
                connection.note_mark(ecn);
                connection.handle_segment(now, &segment, datagram);
            }
            None if flags.contains(Flags::SYN)
                && !flags.intersects(Flags::ACK | Flags::RST | Flags::FIN) =>
            {
                let config = Arc::clone(&self.config);
                let connection = Connection::accept(now, config, &self.params, &segment);
                self.connection = Some(connection);
            }
            None => {}
        }
    }
}

impl Node for ConnectionNode {
    fn handle_train(&mut self, now: Timestamp, from: SocketAddr, train: &Train) {
        if from != self.peer {
            return;
        }
        let mut rest = train.bytes.clone();
        while !rest.is_empty() {
            let datagram = rest.split_to(train.stride.clamp(1, rest.len()));
            self.handle_datagram(now, &datagram, train.ecn);
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        if let Some(connection) = &mut self.connection {
            connection.handle_timeout(now);
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.connection.as_ref()?.poll_timeout()
    }

    fn poll_transmit(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        buf: &mut [u8],
    ) -> Option<Outgoing> {
        let transmit = self
            .connection
            .as_mut()?
            .poll_transmit(now, max_segments, buf)?;
        Some(Outgoing {
            to: self.peer,
            len: transmit.len,
            segment_size: transmit.segment_size,
            ecn: transmit.ecn,
        })
    }

    fn run_applications(&mut self, now: Timestamp) -> Result<Activity, String> {
        let Some(connection) = &mut self.connection else {
            return Ok(Activity::default());
        };
        let application = &mut self.application;
        let mut made_progress = false;
        while let Some(event) = connection.poll_event() {
            made_progress = true;
            application.on_event(event, connection)?;
        }
        if application.wants_to_run(now) {
            made_progress = true;
            application.run(now, connection)?;
        }
        if application.wants_release() {
            made_progress = true;
            connection.release(now);
            application.on_released();
        }
        let wakes_at = application.wakes_at(now);
        Ok(Activity {
            made_progress,
            wakes_at,
        })
    }

    fn check_invariants(&self) {
        if let Some(connection) = &self.connection {
            connection.check_invariants();
        }
    }

    fn failure(&self) -> Option<String> {
        self.application.failure()
    }

    fn check_finished(&self) -> Result<(), String> {
        self.application.check_finished()?;
        match &self.connection {
            Some(connection) if connection.is_drained() => Ok(()),
            Some(connection) => Err(format!("not drained: {:?}", connection.state())),
            None => Err("no SYN arrived".to_owned()),
        }
    }

    fn describe(&self, datagram: &[u8]) -> String {
        let state = self.connection.as_ref().map(Connection::state);
        describe(datagram, state)
    }
}

/// Describes a segment as tcpdump does, with the state of the connection that sends or receives it.
fn describe(datagram: &[u8], state: Option<State>) -> String {
    let Ok(segment) = Segment::decode(datagram) else {
        return format!("{} bytes, no segment", datagram.len());
    };
    let header = segment.header;
    let damage = if segment.integrity().is_none() {
        " damaged"
    } else {
        ""
    };
    format!(
        "{}>{} {} seq {} len {} ack {} win {} {:?}{damage} {state:?}",
        header.src_port,
        header.dst_port,
        header.flags,
        header.seq,
        segment.payload.len(),
        header.ack,
        header.window,
        header.options.sack_blocks.as_slice(),
    )
}

/// What an endpoint does with one peer: the same on every connection between the two.
#[derive(Debug, Clone)]
pub struct Dialogue {
    /// What the side that connects does; with a rendezvous, the lower address.
    pub client: Plan,
    /// What the other side does.
    pub server: Plan,
    /// What the streams' contents are drawn from.
    pub content: u64,
}

impl Dialogue {
    /// Makes the application of one side; `port` tells connections apart, so that bytes of another
    /// connection are wrong ones.
    fn application(&self, port: u16, is_client: bool) -> Application {
        let content = self.content ^ u64::from(port);
        let (plan, peer) = if is_client {
            (&self.client, &self.server)
        } else {
            (&self.server, &self.client)
        };
        Application::new(plan.clone(), peer, content, is_client)
    }
}

/// An endpoint and what its applications do.
#[derive(Debug)]
pub struct EndpointNode {
    endpoint: Endpoint,
    dialogues: HashMap<SocketAddr, Dialogue>,
    applications: Vec<(ConnectionId, Application)>,
    done: Vec<Application>,
    expected_connections: usize,
}

impl EndpointNode {
    /// Makes an endpoint; its secrets are drawn from `seed`.
    pub fn new(addr: SocketAddr, config: Config, seed: u64) -> Self {
        let mut rng = Rng::stream(seed, 0x5365_6372);
        let mut key = || {
            let mut bytes = [0; 16];
            rng.fill(&mut bytes);
            bytes
        };
        let secrets = Secrets {
            isn: key(),
            port: key(),
            cookie: key(),
            hash_seed: seed,
        };
        let local = EndpointLocal { addr };
        Self {
            endpoint: Endpoint::new(Timestamp::ZERO, config, secrets, local),
            dialogues: HashMap::new(),
            applications: Vec::new(),
            done: Vec::new(),
            expected_connections: 0,
        }
    }

    /// Says what is done with a peer that connects, and that `connections` of them are expected.
    pub fn expect(&mut self, peer: SocketAddr, dialogue: Dialogue, connections: usize) {
        self.dialogues.insert(peer, dialogue);
        self.expected_connections += connections;
    }

    /// Listens on a virtual port.
    ///
    /// # Errors
    ///
    /// Those of [`Endpoint::listen`].
    pub fn listen(&mut self, port: u16) -> Result<(), EndpointError> {
        self.endpoint.listen(port, None)
    }

    /// Connects to a listener.
    ///
    /// # Errors
    ///
    /// Those of [`Endpoint::connect`].
    pub fn connect(
        &mut self,
        now: Timestamp,
        peer: SocketAddr,
        port: u16,
        dialogue: &Dialogue,
    ) -> Result<ConnectionId, EndpointError> {
        let id = self.endpoint.connect(now, peer, port, None)?;
        let local_port = self
            .endpoint
            .connection(id)
            .map_or(0, Connection::local_port);
        self.applications
            .push((id, dialogue.application(local_port, true)));
        self.expected_connections += 1;
        Ok(id)
    }

    /// Connects to a peer that does the same.
    ///
    /// # Errors
    ///
    /// Those of [`Endpoint::rendezvous`].
    pub fn rendezvous(
        &mut self,
        now: Timestamp,
        peer: SocketAddr,
        port: u16,
        dialogue: &Dialogue,
        is_client: bool,
    ) -> Result<ConnectionId, EndpointError> {
        let id = self.endpoint.rendezvous(now, peer, port, None)?;
        self.applications
            .push((id, dialogue.application(port, is_client)));
        self.expected_connections += 1;
        Ok(id)
    }

    /// Returns the endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the endpoint to change it between two runs.
    pub fn endpoint_mut(&mut self) -> &mut Endpoint {
        &mut self.endpoint
    }

    /// Returns the applications that have left.
    pub fn done(&self) -> &[Application] {
        &self.done
    }

    fn accept(&mut self, port: u16) -> Result<(), String> {
        while let Some((id, remote)) = self.endpoint.accept(port) {
            let dialogue = self.dialogues.get(&remote).ok_or("accepted a stranger")?;
            let remote_port = self
                .endpoint
                .connection(id)
                .map_or(0, Connection::remote_port);
            let application = dialogue.application(remote_port, false);
            if self.applications.iter().any(|(held, _)| *held == id) {
                return Err(format!("{id:?} was accepted twice"));
            }
            self.applications.push((id, application));
        }
        Ok(())
    }
}

impl Node for EndpointNode {
    fn handle_train(&mut self, now: Timestamp, from: SocketAddr, train: &Train) {
        let arrival = Arrival {
            remote: from,
            local_ip: None,
            ecn: train.ecn,
            bytes: &train.bytes,
            stride: train.stride,
        };
        self.endpoint.handle_arrival(now, &arrival);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.endpoint.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.endpoint.poll_timeout()
    }

    fn poll_transmit(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        buf: &mut [u8],
    ) -> Option<Outgoing> {
        let departure = self.endpoint.poll_transmit(now, max_segments, buf)?;
        Some(Outgoing {
            to: departure.remote,
            len: departure.len,
            segment_size: departure.segment_size,
            ecn: departure.ecn,
        })
    }

    fn run_applications(&mut self, now: Timestamp) -> Result<Activity, String> {
        let mut total = Activity::default();
        while let Some(event) = self.endpoint.poll_event() {
            total.made_progress = true;
            match event {
                EndpointEvent::Incoming { port } => self.accept(port)?,
                EndpointEvent::Connection(id, event) => {
                    let connection = self.endpoint.connection(id);
                    let mut applications = self.applications.iter_mut();
                    let application = applications.find(|(held, _)| *held == id);
                    let (Some((_, application)), Some(connection)) = (application, connection)
                    else {
                        return Err(format!("{event:?} of {id:?}, which nobody holds"));
                    };
                    application.on_event(event, connection)?;
                }
            }
        }
        let mut left = None;
        for (index, (id, application)) in self.applications.iter_mut().enumerate() {
            if application.wants_to_run(now) {
                total.made_progress = true;
                self.endpoint
                    .with_connection(now, *id, |connection| application.run(now, connection))
                    .ok_or("an application's connection is gone")??;
            }
            if application.wants_release() {
                left = Some(index);
            }
            let wakes = [total.wakes_at, application.wakes_at(now)];
            total.wakes_at = wakes.into_iter().flatten().min();
        }
        if let Some(index) = left {
            let (id, mut application) = self.applications.remove(index);
            self.endpoint.release(now, id);
            application.on_released();
            self.done.push(application);
            total.made_progress = true;
        }
        Ok(total)
    }

    fn check_invariants(&self) {
        self.endpoint.check_invariants();
    }

    fn failure(&self) -> Option<String> {
        let held = self.applications.iter().map(|(_, application)| application);
        held.chain(&self.done).find_map(Application::failure)
    }

    fn check_finished(&self) -> Result<(), String> {
        let held = self.applications.iter().map(|(_, application)| application);
        for application in held.chain(&self.done) {
            application.check_finished()?;
        }
        if self.done.len() != self.expected_connections {
            let expected = self.expected_connections;
            return Err(format!(
                "{} connections instead of {expected}",
                self.done.len()
            ));
        }
        let stats = self.endpoint.stats();
        if !self.endpoint.is_idle() || stats.connections != 0 || stats.time_wait != 0 {
            return Err(format!("not idle: {stats:?}"));
        }
        Ok(())
    }

    fn describe(&self, datagram: &[u8]) -> String {
        describe(datagram, None)
    }
}
