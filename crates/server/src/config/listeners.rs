//! Which listeners a configuration asks for: the wishes of all keys, put together address by address.
//!
//! Opening them is `net`'s.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use millrace_http::Roles;
use serde::Deserialize;

use super::ServerConfig;
use super::error::{ConfigError, Place};
use crate::net::Address;

/// A server whose ports are opened besides our own, so that its clients need no change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Compat {
    /// TensorFlow Serving: 8501 and 8500.
    Tfs,
    /// Triton: 8000, 8001, and 8002 for metrics.
    Triton,
    /// TorchServe: 8080 and 7070, 8081 and 7071 for management, 8082 for metrics.
    Torchserve,
}

impl Compat {
    fn name(self) -> &'static str {
        match self {
            Self::Tfs => "tfs",
            Self::Triton => "triton",
            Self::Torchserve => "torchserve",
        }
    }

    /// Its ports and what each is for.
    fn ports(self) -> &'static [(u16, Roles)] {
        match self {
            Self::Tfs => &[(8501, Roles::DATA), (8500, Roles::DATA)],
            Self::Triton => &[(8000, Roles::DATA), (8001, Roles::DATA), (8002, Roles::METRICS)],
            Self::Torchserve => &[
                (8080, Roles::DATA),
                (8081, Roles::ADMIN),
                (8082, Roles::METRICS),
                (7070, Roles::DATA),
                (7071, Roles::ADMIN),
            ],
        }
    }
}

/// A listener to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenerConfig {
    pub(crate) address: Address,
    pub(crate) roles: Roles,
    /// The flags that want it, for errors.
    pub(crate) wished_by: String,
}

/// The listeners that `config` asks for, the first client's address first. An address that is wished for twice is one
/// listener with both roles.
pub(crate) fn listeners(config: &ServerConfig) -> Result<Vec<ListenerConfig>, ConfigError> {
    let mut listeners: Vec<ListenerConfig> = Vec::new();
    for (address, roles, flag) in wishes(config) {
        if let Some(known) = listeners.iter_mut().find(|known| known.address.is_shared_with(&address)) {
            known.roles = known.roles.and(roles);
            if !known.wished_by.contains(&flag) {
                known.wished_by = format!("{}, {flag}", known.wished_by);
            }
            continue;
        }
        if let Some(known) = listeners.iter().find(|known| known.address.overlaps(&address)) {
            let message = format!(
                "{flag} wants {address} and {} wants {}, which cannot both be listened on; give one another port, or \
                 both the same address",
                known.wished_by, known.address
            );
            return Err(ConfigError::new(Place::Together, message));
        }
        listeners.push(ListenerConfig { address, roles, wished_by: flag });
    }
    if !listeners.iter().any(|listener| listener.roles.inference) {
        let message = "server.listen: no address for clients is left; write IP:PORT or unix:/PATH";
        return Err(ConfigError::new(Place::Together, message));
    }
    Ok(listeners)
}

impl ListenerConfig {
    /// Its name in metrics and logs.
    pub(crate) fn label(&self) -> &'static str {
        match (self.roles.inference, self.roles.management) {
            (true, _) => "data",
            (false, true) => "admin",
            (false, false) => "metrics",
        }
    }
}

/// Every address that is asked for, with the flag that asks.
fn wishes(config: &ServerConfig) -> Vec<(Address, Roles, String)> {
    let data_roles = Roles { repository: config.admin_on_data_plane, ..Roles::DATA };
    let own = [
        (&config.listen, data_roles, "--listen"),
        (&config.admin, Roles::ADMIN, "--admin"),
        (&config.metrics, Roles::METRICS, "--metrics"),
    ];
    let own = own.into_iter().flat_map(|(addresses, roles, flag)| {
        addresses.iter().map(move |address| (address.clone(), roles, flag.to_owned()))
    });
    let host = |addresses: &[Address]| -> Option<IpAddr> {
        addresses.first().map(|_| ())?;
        // Where there are Unix sockets only, nothing was meant to be reached from elsewhere.
        let tcp = addresses.iter().find_map(Address::tcp);
        Some(tcp.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip()))
    };
    let (data, admin) = (host(&config.listen), host(&config.admin));
    let compat = config.compat.iter().flat_map(|compat| {
        compat.ports().iter().filter_map(move |(port, roles)| {
            // Without an admin address there is nowhere for orders, by whatever protocol.
            let host = if roles.management { admin } else { data }?;
            let address = Address::Tcp(SocketAddr::new(host, *port));
            let roles = if *roles == Roles::DATA { data_roles } else { *roles };
            Some((address, roles, format!("--compat {}", compat.name())))
        })
    });
    own.chain(compat).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millrace_http::Roles;

    use super::{Compat, listeners};
    use crate::config::ServerConfig;
    use crate::net::Address;

    fn plan(listen: &[&str], admin: &[&str], compat: &[Compat]) -> Result<BTreeMap<String, String>, String> {
        let mut config = ServerConfig::repository(".");
        let read = |texts: &[&str]| -> Vec<Address> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        (config.listen, config.admin, config.compat) = (read(listen), read(admin), compat.to_vec());
        let listeners = listeners(&config).map_err(|error| error.to_string())?;
        let name = |roles: Roles| match roles {
            Roles { inference: true, management: true, repository: true } => "data+admin",
            Roles::DATA => "data",
            Roles::ADMIN => "admin",
            Roles::METRICS => "metrics",
            other => panic!("{other:?}"),
        };
        Ok(listeners.iter().map(|listener| (listener.address.to_string(), name(listener.roles).to_owned())).collect())
    }

    fn check(listen: &[&str], admin: &[&str], compat: &[Compat], expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(address, roles)| ((*address).to_owned(), (*roles).to_owned())).collect();
        assert_eq!(plan(listen, admin, compat), Ok(expected));
    }

    const OWN: (&[&str], &[&str]) = (&["0.0.0.0:8080"], &["127.0.0.1:8081"]);

    #[test]
    fn the_default_is_a_data_port_and_an_admin_port() {
        check(OWN.0, OWN.1, &[], &[("0.0.0.0:8080", "data"), ("127.0.0.1:8081", "admin")]);
    }

    #[test]
    fn each_compat_opens_its_ports_on_our_hosts() {
        let own = [("0.0.0.0:8080", "data"), ("127.0.0.1:8081", "admin")];
        let with = |more: &[(&'static str, &'static str)]| [&own, more].concat();
        check(OWN.0, OWN.1, &[Compat::Tfs], &with(&[("0.0.0.0:8500", "data"), ("0.0.0.0:8501", "data")]));
        let triton = with(&[("0.0.0.0:8000", "data"), ("0.0.0.0:8001", "data"), ("0.0.0.0:8002", "metrics")]);
        check(OWN.0, OWN.1, &[Compat::Triton], &triton);
        // Its 8080 and 8081 are ours.
        let torchserve = with(&[("0.0.0.0:7070", "data"), ("127.0.0.1:7071", "admin"), ("0.0.0.0:8082", "metrics")]);
        check(OWN.0, OWN.1, &[Compat::Torchserve], &torchserve);
    }

    #[test]
    fn an_address_that_is_wished_for_twice_has_both_roles() {
        check(&["127.0.0.1:9"], &["127.0.0.1:9"], &[], &[("127.0.0.1:9", "data+admin")]);
        check(
            &["127.0.0.1:8081"],
            &["127.0.0.1:9"],
            &[Compat::Torchserve],
            &[
                ("127.0.0.1:8080", "data"),
                ("127.0.0.1:8081", "data+admin"),
                ("127.0.0.1:9", "admin"),
                ("127.0.0.1:8082", "metrics"),
                ("127.0.0.1:7070", "data"),
                ("127.0.0.1:7071", "admin"),
            ],
        );
        check(&["unix:/a"], &["unix:/a"], &[], &[("unix:/a", "data+admin")]);
    }

    #[test]
    fn repository_verbs_reach_clients_only_where_an_operator_says_so() {
        let mut config = ServerConfig::repository(".");
        config.compat = vec![Compat::Triton];
        for said in [false, true] {
            config.admin_on_data_plane = said;
            for listener in listeners(&config).unwrap() {
                let roles = listener.roles;
                assert_eq!(roles.repository, roles.management || (said && roles.inference), "{listener:?}");
                assert_eq!(roles.management, listener.wished_by == "--admin", "{listener:?}");
            }
        }
    }

    #[test]
    fn without_an_admin_address_no_port_takes_orders() {
        let expected = [("0.0.0.0:8080", "data"), ("0.0.0.0:8082", "metrics"), ("0.0.0.0:7070", "data")];
        check(&["0.0.0.0:8080"], &[], &[Compat::Torchserve], &expected);
    }

    #[test]
    fn beside_a_unix_socket_compat_stays_on_this_machine() {
        let expected = [("unix:/a", "data"), ("127.0.0.1:8500", "data"), ("127.0.0.1:8501", "data")];
        check(&["unix:/a"], &[], &[Compat::Tfs], &expected);
    }

    #[test]
    fn addresses_that_cannot_be_had_together_are_refused_by_name() {
        let error = plan(&["0.0.0.0:8081"], &["127.0.0.1:8081"], &[]).unwrap_err();
        assert!(error.contains("--admin wants 127.0.0.1:8081 and --listen wants 0.0.0.0:8081"), "{error}");
        let error = plan(&["127.0.0.1:8500"], &["127.0.0.1:1"], &[Compat::Tfs]).map(|_| ());
        assert_eq!(error, Ok(()));
        let error = plan(&["0.0.0.0:1", "127.0.0.1:8500"], &[], &[Compat::Tfs]).unwrap_err();
        assert!(error.contains("--compat tfs wants 0.0.0.0:8500"), "{error}");
        assert!(plan(&[], OWN.1, &[]).unwrap_err().contains("server.listen"));
    }
}
