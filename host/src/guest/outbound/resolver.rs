//! From a name to the addresses that it may lead to.
//!
//! A name is asked for once, however many calls wait for it, and no thread waits with them: a name whose servers are dead costs the
//! others nothing. What is found is remembered for as long as its server says, so most calls ask nobody.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Hosts, ResolverBuilder, TokioResolver};
use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use tokio::sync::{OnceCell, Semaphore};
use tower_service::Service;

use super::address::may_reach;
use super::refusal::{Refusal, Refused};

/// Names that are looked up at the same time; more wait for their turn. Each takes up to four sockets: for both kinds of address, of
/// two servers.
const LOOKUPS: usize = 128;
/// Names that are remembered.
const REMEMBERED: u64 = 1024;
/// How long it is remembered at the most that a name leads nowhere: a Service may be made just after it was asked for.
const NOWHERE_MAX: Duration = Duration::from_secs(5);
/// Questions that one connection to a server of names may have open: no fewer than there are.
const QUESTIONS: usize = 2 * LOOKUPS;

/// Names that stand beside DNS; those of a pod are the kubelet's.
const HOSTS: &str = "/etc/hosts";

type Builder = ResolverBuilder<TokioRuntimeProvider>;
type Found = Result<Arc<[IpAddr]>, Refusal>;

/// Resolves a name and leaves out the addresses that it must not lead to. The connection goes to one of those that are
/// left, so that a name cannot lead elsewhere a moment later.
#[derive(Clone)]
pub(crate) struct Resolver(Arc<Shared>);

struct Shared {
    networks: Vec<IpNet>,
    dns: TokioResolver,
    hosts: Mutex<KnownHosts>,
    /// The names that are asked for now.
    asked: Mutex<HashMap<Box<str>, Weak<OnceCell<Found>>>>,
    turns: Semaphore,
}

/// The file of names as it was read last.
#[derive(Default)]
struct KnownHosts {
    version: Option<[i64; 4]>,
    hosts: Arc<Hosts>,
}

impl Resolver {
    /// Names may lead to public addresses, and into these networks. `/etc/resolv.conf` says who is asked, as everywhere; a server
    /// that says nothing leaves another, or the next try, one half of `patience`.
    ///
    /// # Errors
    /// None that is known for names over UDP and TCP.
    pub(crate) fn new(networks: &[IpNet], patience: Duration) -> anyhow::Result<Self> {
        let builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(%error, "/etc/resolv.conf names no server: only the names of {HOSTS} are known");
            let nobody = ResolverConfig::from_name_servers(Vec::new());
            TokioResolver::builder_with_config(nobody, TokioRuntimeProvider::default())
        });
        Self::with(networks, patience, builder)
    }

    fn with(networks: &[IpNet], patience: Duration, mut builder: Builder) -> anyhow::Result<Self> {
        let options = builder.options_mut();
        options.timeout = options.timeout.min(patience / 2);
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6; // a cluster often has routes for IPv4 alone
        options.use_hosts_file = ResolveHosts::Never; // it would be read once
        options.cache_size = REMEMBERED;
        options.negative_max_ttl = Some(NOWHERE_MAX);
        options.max_active_requests = QUESTIONS;
        Ok(Self(Arc::new(Shared {
            networks: networks.to_vec(),
            dns: builder.build()?,
            hosts: Mutex::default(),
            asked: Mutex::default(),
            turns: Semaphore::new(LOOKUPS),
        })))
    }
}

impl Shared {
    /// All addresses of a name. Who asks for a name that is asked for already waits for that answer.
    async fn addresses(&self, name: &str) -> Found {
        let asked = {
            let mut names = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            names.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
                names.retain(|_, asked| asked.strong_count() > 0);
                let asked = Arc::default();
                names.insert(name.into(), Arc::downgrade(&asked));
                asked
            })
        };
        // Where who asks gives up, one of those that wait asks in its place.
        asked.get_or_init(|| self.look_up(name)).await.clone()
    }

    async fn look_up(&self, name: &str) -> Found {
        let _turn = self.turns.acquire().await;
        let mut dns = self.dns.clone();
        dns.set_hosts(self.hosts());
        let found = dns.lookup_ip(name).await.map_err(|error| {
            tracing::debug!(name, %error, "a name");
            Refusal::NoSuchName
        })?;
        Ok(found.iter().collect())
    }

    /// The names of [`HOSTS`], which is read again when it has changed.
    fn hosts(&self) -> Arc<Hosts> {
        let version = std::fs::metadata(HOSTS).ok();
        let version =
            version.map(|file| [file.ino().cast_signed(), file.size().cast_signed(), file.mtime(), file.mtime_nsec()]);
        let mut known = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if known.version != version {
            *known = KnownHosts { version, hosts: Arc::new(Hosts::from_system().unwrap_or_default()) };
        }
        known.hosts.clone()
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("networks", &self.0.networks).finish_non_exhaustive()
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Refused>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let found = shared.addresses(name.as_str()).await.map_err(Refused)?;
            let open = found.iter().filter(|address| may_reach(**address, &shared.networks));
            let open: Vec<_> = open.map(|address| SocketAddr::new(*address, 0)).collect();
            match (open.is_empty(), found.is_empty()) {
                (false, _) => Ok(open.into_iter()),
                (true, false) => Err(Refused(Refusal::Prohibited)),
                (true, true) => Err(Refused(Refusal::NoSuchName)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::Ipv4Addr;

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
    use tokio::net::UdpSocket;
    use tokio::task::JoinSet;

    use super::*;

    const A: [u8; 2] = [0, 1];
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A server of names: says which it was asked for an address of IPv4, and answers by the name's first label. `dead` has no answer at
    /// all; `keep` is to be remembered, `once` is not.
    struct Names {
        resolver: Resolver,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl Names {
        async fn start() -> Self {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let mut connection = ConnectionConfig::udp();
            connection.port = socket.local_addr().unwrap().port();
            let server = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![connection]);
            let config = ResolverConfig::from_name_servers(vec![server]);
            let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            let resolver = Resolver::with(&["192.0.2.0/24".parse().unwrap()], PATIENCE, builder).unwrap();
            let asked = Arc::<Mutex<Vec<String>>>::default();
            let log = asked.clone();
            tokio::spawn(async move {
                let mut question = [0; 512];
                loop {
                    let (length, client) = socket.recv_from(&mut question).await.unwrap();
                    let (name, answer) = answer(&question[..length]);
                    log.lock().unwrap().extend(name);
                    if let Some(answer) = answer {
                        socket.send_to(&answer, client).await.unwrap();
                    }
                }
            });
            Self { resolver, asked }
        }

        /// How often a name was asked for.
        fn count(&self, name: &str) -> usize {
            self.asked.lock().unwrap().iter().filter(|asked| *asked == name).count()
        }

        async fn resolve(&self, name: &str) -> Result<Vec<SocketAddr>, Refusal> {
            let found = self.resolver.clone().call(name.parse().unwrap()).await;
            found.map(Iterator::collect).map_err(|Refused(why)| why)
        }
    }

    /// The name whose address of IPv4 is asked for, and the answer (RFC 1035, 4.1).
    fn answer(question: &[u8]) -> (Option<String>, Option<Vec<u8>>) {
        let mut labels = Vec::new();
        let mut at = 12;
        while question[at] > 0 {
            let end = at + 1 + usize::from(question[at]);
            labels.push(String::from_utf8(question[at + 1..end].to_ascii_lowercase()).unwrap());
            at = end;
        }
        let (kind, end) = (&question[at + 1..at + 3], at + 5);
        let name = (kind == A).then(|| labels.join("."));
        let (ttl, address) = match labels[0].as_str() {
            "dead" => return (name, None),
            "keep" => (300, [192, 0, 2, 1]),
            "private" => (300, [10, 0, 0, 1]),
            _ => (0, [192, 0, 2, 2]),
        };
        let is_there = kind == A && labels[0] != "nobody";
        let code = if labels[0] == "nobody" { 3 } else { 0 };
        let mut answer = [&question[..2], &[0x81, 0x80 | code, 0, 1, 0, u8::from(is_there), 0, 0, 0, 0]].concat();
        answer.extend_from_slice(&question[12..end]);
        if is_there {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
            answer.extend_from_slice(&u32::to_be_bytes(ttl));
            answer.extend_from_slice(&[0, 4]);
            answer.extend_from_slice(&address);
        }
        (name, Some(answer))
    }

    #[tokio::test]
    async fn a_dead_name_is_asked_for_once_by_all_who_wait_and_keeps_no_other_waiting() {
        let names = Arc::new(Names::start().await);
        let mut waiting = JoinSet::new();
        for _ in 0..600 {
            let names = names.clone();
            waiting.spawn(async move { names.resolve("dead.test").await });
        }
        for number in 0..20 {
            assert!(names.resolve(&format!("other-{number}.test")).await.is_ok());
        }
        assert_eq!(names.count("dead.test"), 1);
        assert_eq!(names.resolver.0.turns.available_permits(), LOOKUPS - 1);
        waiting.shutdown().await;
        assert_eq!(names.resolver.0.turns.available_permits(), LOOKUPS, "it ends with those who wait for it");
        assert!(names.resolve("other.test").await.is_ok());
        assert_eq!(names.resolver.0.asked.lock().unwrap().len(), 1, "and is forgotten");
    }

    /// The one who asks gives up, and the others have their answer.
    #[tokio::test]
    async fn who_waits_does_not_depend_on_who_asks() {
        let names = Arc::new(Names::start().await);
        let turns = names.resolver.0.turns.acquire_many(LOOKUPS as u32).await.unwrap();
        let mut both = [0, 1].map(|_| {
            let names = names.clone();
            Box::pin(async move { names.resolve("keep.test").await })
        });
        for asks in &mut both {
            assert!(poll_fn(|context| Poll::Ready(asks.as_mut().poll(context).is_pending())).await);
        }
        let [first, second] = both;
        drop((first, turns));
        assert_eq!(second.await.unwrap(), ["192.0.2.1:0".parse().unwrap()]);
    }

    #[tokio::test]
    async fn an_answer_is_remembered_for_as_long_as_its_server_says() {
        let names = Names::start().await;
        for (name, asked) in [("keep.test", 1), ("once.test", 2)] {
            for _ in 0..2 {
                assert_eq!(names.resolve(name).await.unwrap().len(), 1);
            }
            assert_eq!(names.count(name), asked, "{name}");
        }
    }

    #[tokio::test]
    async fn a_name_leads_to_addresses_that_it_may_lead_to() {
        let names = Names::start().await;
        assert_eq!(names.resolve("private.test").await, Err(Refusal::Prohibited));
        assert_eq!(names.resolve("nobody.test").await, Err(Refusal::NoSuchName));
    }
}
