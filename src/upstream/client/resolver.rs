//! How names are resolved, for ureq.

use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::unversioned::transport::time::Duration as Never;

use crate::os::thread;

/// Resolves names as ureq's own resolver does with a timeout, but does not panic if there can be no more threads: then it
/// blocks the exchange's own thread, which is waited for no longer than its timeout.
#[derive(Debug)]
pub(super) struct BoundedResolver;

impl Resolver for BoundedResolver {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        // Without a timeout, ureq's resolver starts no thread.
        let never = NextTimeout { after: Never::NotHappening, ..timeout };
        let (shared_uri, shared_config) = (uri.clone(), config.clone());
        let resolve =
            move || DefaultResolver::default().resolve(&shared_uri, &shared_config, never);
        match thread::start("resolve", resolve) {
            Ok(pending) => {
                pending.wait(*timeout.after).unwrap_or(Err(ureq::Error::Timeout(timeout.reason)))
            }
            Err(_) => DefaultResolver::default().resolve(uri, config, never),
        }
    }
}
