//! `--allow`: the networks that files are taken from.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Bits in front of an IPv4 address that is written as an IPv6 one (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// Whom the server serves.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Allowed {
    /// Take files from this network only, such as 192.0.2.0/24, or from one address; may be repeated.
    /// Default: from everybody. An IPv4 client is looked for among the IPv4 networks on every socket.
    #[arg(long = "allow", value_name = "CIDR", value_parser = network)]
    networks: Vec<IpNet>,
}

impl Allowed {
    /// Whether files are taken from `address`.
    pub(crate) fn check(&self, address: IpAddr) -> bool {
        // A dual-stack socket may show an IPv4 client by its mapped address.
        let address = address.to_canonical();
        self.networks.is_empty() || self.networks.iter().any(|net| net.contains(&address))
    }

    /// Whether everybody is served.
    pub(crate) fn is_everybody(&self) -> bool {
        self.networks.is_empty()
    }
}

/// The networks, as they were given.
impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks: Vec<_> = self.networks.iter().map(IpNet::to_string).collect();
        f.write_str(&networks.join(", "))
    }
}

/// A network in the form in which [`Allowed::check`] looks for addresses.
fn network(text: &str) -> Result<IpNet, String> {
    let net = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text
            .parse::<IpNet>()
            .map_err(|_| "neither ADDRESS/BITS nor an address".to_owned())?,
    };
    // More than was meant may be open if they are cut off in silence.
    if net.addr() != net.network() {
        let trunc = net.trunc();
        return Err(format!("has bits behind the network: is {trunc} meant?"));
    }
    let IpNet::V6(mapped) = net else {
        return Ok(net);
    };
    let inner = mapped.addr().to_ipv4_mapped();
    let bits = mapped.prefix_len().checked_sub(MAPPED_BITS);
    match inner.zip(bits) {
        Some((address, bits)) => Ipv4Net::new(address, bits)
            .map(IpNet::V4)
            .map_err(|error| error.to_string()),
        None => Ok(net),
    }
}
