//! Which network this host is in, by what leads out of it: what works in one network may not in the next.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use ipnetwork::IpNetwork;
use tokio::time::{Instant, sleep};

use super::netlink::{Netlink, Way};
use crate::io;

/// A name for the network that packets with `mark` to `server` leave by: the gateway's hardware address, which no two networks
/// share; where there is none, as on a mobile line, the device, its network and the gateway. `None` without a way to the server.
///
/// Just after a move the kernel does not know the gateway's address yet: it is waited for until `patience` is over.
///
/// # Errors
/// Netlink is not available.
pub async fn network_name(server: IpAddr, mark: u32, patience: Duration) -> Result<Option<String>> {
    let netlink = Netlink::open()?;
    let Some(way) = netlink.way_to(server, mark).await? else { return Ok(None) };
    let hardware = match way.gateway {
        Some(gateway) => hardware_address(&netlink, way.device, gateway, patience).await?,
        None => None,
    };
    Ok(Some(match hardware {
        Some(address) => by_hardware(&address),
        None => by_place(&way, &device_name(way.device), &io::local_networks()),
    }))
}

async fn hardware_address(
    netlink: &Netlink,
    device: u32,
    gateway: IpAddr,
    patience: Duration,
) -> Result<Option<Vec<u8>>> {
    let until = Instant::now() + patience;
    loop {
        let found = netlink.hardware_address(device, gateway).await?;
        if found.is_some() || Instant::now() >= until {
            return Ok(found);
        }
        sleep(ASK_EVERY).await;
    }
}

fn by_hardware(address: &[u8]) -> String {
    let bytes: Vec<_> = address.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("gateway {}", bytes.join(":"))
}

fn by_place(way: &Way, device: &str, local: &[IpNetwork]) -> String {
    let network = local.iter().find(|network| Some(network.ip()) == way.source);
    let network = network.and_then(|network| IpNetwork::new(network.network(), network.prefix()).ok());
    let mut name = device.to_owned();
    for part in [network.map(|network| network.to_string()), way.gateway.map(|gateway| gateway.to_string())] {
        name.push(' ');
        name.push_str(part.as_deref().unwrap_or("-"));
    }
    name
}

fn device_name(index: u32) -> String {
    let interfaces = pnet::datalink::interfaces();
    let device = interfaces.into_iter().find(|interface| interface.index == index);
    device.map_or_else(|| format!("device {index}"), |device| device.name)
}

/// Our choice: a neighbour on a local network answers within a few milliseconds.
const ASK_EVERY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_named_after_the_gateway_or_the_place() {
        assert_eq!(by_hardware(&[2, 0, 0xab, 0, 0, 1]), "gateway 02:00:ab:00:00:01");
        let local = ["10.0.1.2/24".parse().unwrap(), "192.0.2.7/24".parse().unwrap()];
        let way = Way {
            device: 3,
            gateway: Some("192.0.2.1".parse().unwrap()),
            source: Some("192.0.2.7".parse().unwrap()),
        };
        assert_eq!(by_place(&way, "wwan0", &local), "wwan0 192.0.2.0/24 192.0.2.1");
        assert_eq!(by_place(&Way { gateway: None, source: None, ..way }, "ppp0", &local), "ppp0 - -");
    }
}
