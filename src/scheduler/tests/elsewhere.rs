//! The keys of `[redis] also`, which are kept in step with the document.

use anyhow::Result;

use super::*;
use crate::scheduler::settings::SharedStore;
use crate::store::{Found, Lease, Store};
use std::time::Instant;

/// A store whose token stands elsewhere, too, or not.
struct StoreWithKeys {
    store: SharedStore,
    has_keys: bool,
    looked: AtomicUsize,
    synced: AtomicUsize,
}

impl Store for StoreWithKeys {
    fn read(&self) -> Result<Found> {
        self.store.read()
    }

    fn acquire(&self, clock: &dyn Clock, deadline: Instant) -> Result<Option<Box<dyn Lease>>> {
        self.store.acquire(clock, deadline)
    }

    fn has_also_keys(&self) -> bool {
        self.looked.fetch_add(1, Ordering::Relaxed);
        self.has_keys
    }

    fn sync_also_keys(&self) -> Result<()> {
        self.synced.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn what_stands_elsewhere_is_looked_at_every_half_minute() {
    for has_keys in [true, false] {
        run(async |mut fixture| {
            let mut settings =
                Settings::new(fixture.account.clone(), 0o600, &fixture.environment.stores);
            let store = Arc::new(StoreWithKeys {
                store: Arc::clone(&settings.token_store),
                has_keys,
                looked: AtomicUsize::default(),
                synced: AtomicUsize::default(),
            });
            settings.token_store = Arc::clone(&store) as SharedStore;
            let upstream = Arc::clone(&fixture.upstream) as Arc<dyn Upstream>;
            let connection = UpstreamConnection::new("shop", connect_nothing(), Some(upstream));
            let worker = Rc::new(Worker::new(settings, connection, fixture.environment.clone()));
            fixture.scheduler = Scheduler { worker, schedule: RefCell::default() };
            fixture.scheduler.start();
            fixture.pass(Duration::from_secs(100)).await;
            assert_eq!(store.looked.load(Ordering::Relaxed), 4);
            // Each is done in a thread of its own.
            let expected = if has_keys { 4 } else { 0 };
            while store.synced.load(Ordering::Relaxed) < expected {
                yield_now().await;
            }
            assert_eq!(store.synced.load(Ordering::Relaxed), expected);
        });
    }
}
