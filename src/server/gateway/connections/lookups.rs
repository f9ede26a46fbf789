//! Looks names up in threads. Connects to nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::spawn_local;

use crate::os::thread;

/// The addresses of a name, or why there are none.
type Found = Result<Vec<IpAddr>, Arc<io::Error>>;

/// The look-ups under way, one for each name: a call that needs a name that is being looked up waits for the same thread. So
/// a name server that does not answer takes one thread a name, however many calls are made.
#[derive(Default)]
pub(super) struct NameLookups {
    under_way: RefCell<HashMap<String, watch::Receiver<Option<Found>>>>,
}

impl NameLookups {
    /// Returns the addresses of a name or address, with this port. Fails if there are none, or if there can be no thread.
    pub(super) async fn addresses(
        self: &Rc<Self>,
        host: &str,
        port: u16,
    ) -> io::Result<Vec<SocketAddr>> {
        let found = match host.parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            Err(_) => {
                self.of_name(host, |name| {
                    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
                })
                .await?
            }
        };
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    async fn of_name(
        self: &Rc<Self>,
        name: &str,
        look_up: impl FnOnce(&str) -> io::Result<Vec<IpAddr>> + Send + 'static,
    ) -> io::Result<Vec<IpAddr>> {
        let known = self.under_way.borrow().get(name).cloned();
        let mut result = known.unwrap_or_else(|| self.start(name.to_owned(), look_up));
        let found = result.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        match found {
            Some(Ok(addresses)) => Ok(addresses),
            Some(Err(err)) => Err(io::Error::new(err.kind(), err)),
            None => Err(io::ErrorKind::Interrupted.into()), // The server ends.
        }
    }

    /// Starts to look a name up. That goes on if no call waits for it any more: getaddrinfo(3) cannot be ended.
    fn start(
        self: &Rc<Self>,
        name: String,
        look_up: impl FnOnce(&str) -> io::Result<Vec<IpAddr>> + Send + 'static,
    ) -> watch::Receiver<Option<Found>> {
        let (sender, result) = watch::channel(None);
        self.under_way.borrow_mut().insert(name.clone(), result.clone());
        let lookups = Rc::clone(self);
        spawn_local(async move {
            let wanted = name.clone();
            let found = thread::run(move || look_up(&wanted)).await.and_then(|found| found);
            lookups.under_way.borrow_mut().remove(&name);
            let _ = sender.send(Some(found.map_err(Arc::new))); // Not received if the calls have given up.
        });
        result
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use tokio::task::LocalSet;

    use super::*;

    fn on_one_thread(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn calls_that_need_the_same_name_wait_for_one_thread() {
        on_one_thread(async {
            let lookups = Rc::new(NameLookups::default());
            let (allow, allowed) = mpsc::channel::<()>();
            let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
            let first = lookups.start("name".to_owned(), move |_| {
                allowed.recv().map_err(io::Error::other)?;
                Ok(vec![address])
            });
            let others: Vec<_> = (0..100)
                .map(|_| {
                    let lookups = Rc::clone(&lookups);
                    spawn_local(async move {
                        lookups.of_name("name", |_| panic!("another thread")).await.unwrap()
                    })
                })
                .collect();
            drop(first); // A call that gives up.
            tokio::task::yield_now().await;
            allow.send(()).unwrap();
            for other in others {
                assert_eq!(other.await.unwrap(), [address]);
            }
            assert!(lookups.under_way.borrow().is_empty());
        });
    }

    #[test]
    fn a_failure_reaches_the_call_and_is_not_kept() {
        on_one_thread(async {
            let lookups = Rc::new(NameLookups::default());
            let fail = |_: &str| Err(io::Error::other("no such name"));
            let err = lookups.of_name("name", fail).await.unwrap_err();
            assert!(err.to_string().contains("no such name"), "{err}");
            let found = lookups.of_name("name", |_| Ok(vec![Ipv4Addr::LOCALHOST.into()])).await;
            assert_eq!(found.unwrap(), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
            let literal = lookups.addresses("::1", 7200).await.unwrap();
            assert_eq!(literal, ["[::1]:7200".parse().unwrap()]);
        });
    }
}
