//! Decides about a request to the gateway, by its head: who may call which API of which account, and with which token.
//! Pure: opens no connection and waits for nothing.

pub(crate) mod path;
mod query;
mod refusal;
#[cfg(test)]
pub(crate) use text::ALL;
mod text;

use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header;

use self::path::{ApiPath, Treatment};
pub(crate) use self::query::ApiTarget;
use self::query::Query;
pub(crate) use self::refusal::GatewayRefusal;
use crate::accounts::{Accounts, TokenAge};
use crate::model::client_key::api_scope::ApiScope;
use crate::model::errcode::Platform;
use crate::server::access::AccessRules;
use crate::server::access::forwarded::ClientAddress;
use crate::server::access::host;
use crate::server::access::keys::{self, AccountScope, Key, KeyScheme};
use crate::server::access::opaque::Opened;
use crate::server::access::peer::Peer;
use crate::server::headers::values;

/// What is known of a request before its body is read. The checks of addresses, proxies, `Host` and browsers have passed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ApiRequest<'a> {
    /// The path as it came.
    pub(crate) path: &'a str,
    /// The query as it came.
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) client: ClientAddress,
}

/// A request that is passed on to WeChat.
///
/// The `Authorization` header is not passed on: it may hold the client's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// The account in whose name the call is made, or at least over whose way to WeChat.
    pub(crate) account: usize,
    pub(crate) token: TokenInRequest,
    pub(crate) target: ApiTarget,
    /// The name of the client's key, if the request has one.
    pub(crate) key: Option<Arc<str>>,
    /// Whether the client is not handed WeChat's token.
    pub(crate) hides_token: bool,
}

/// The token that a request came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenInRequest {
    /// The account's published token.
    Current,
    /// One that was published until lately. The call is made with the current one.
    Replaced,
    /// None. The call is made with the current one.
    Absent,
    /// A token of another kind, or none because the call takes none. It is passed on as it is, and never repeated.
    Foreign,
}

/// Decides about a request by the access rules and the accounts of one snapshot.
pub(crate) fn admit(
    request: ApiRequest<'_>,
    access: &AccessRules,
    accounts: &Accounts,
) -> Result<Admitted, GatewayRefusal> {
    let api = ApiPath::parse(request.path)?;
    let query = Query::parse(request.query)?;
    let foreign = match api.treatment() {
        Treatment::Refused(refusal) => return Err(refusal),
        Treatment::Foreign(platform) => Some(platform),
        Treatment::Ordinary if !query.has_foreign_token => None,
        Treatment::Ordinary if query.token.is_empty() => Some(Platform::Official),
        Treatment::Ordinary => return Err(GatewayRefusal::AmbiguousToken),
    };
    let key = match &access.keys {
        None => None,
        Some(keys) => match keys::presented_key(request.headers)? {
            Some((KeyScheme::Bearer, presented)) => {
                Some(keys.find(&presented).ok_or(GatewayRefusal::UnknownKey)?)
            }
            // A browser sends it by itself, and plain HTTP does not say which site's page made it do so.
            Some((KeyScheme::Basic, _)) => return Err(GatewayRefusal::BasicKey),
            None => None,
        },
    };
    let of_token = match foreign.is_none() && !query.token.is_empty() {
        true => Some(open(&query.token, access, accounts).ok_or(GatewayRefusal::UnknownToken)?),
        false => None,
    };
    // An opaque token says for which key it was made.
    let key = match (key, of_token.as_ref().and_then(|opened| opened.key)) {
        (Some(shown), Some(of_token)) if shown.digest() != of_token.digest() => {
            return Err(GatewayRefusal::UnknownToken);
        }
        (shown, of_token) => of_token.or(shown),
    };
    let platform = named_platform(request.headers);
    let client = ApiClient { address: request.client, key, platform, access, accounts };
    let (account, token, is_from_appid_used) = if let Some(platform) = foreign {
        let (account, is_from_appid_used) = client.account_on(platform, &api, &query)?;
        (account, TokenInRequest::Foreign, is_from_appid_used)
    } else if let Some(OpenedToken { account, age, .. }) = of_token {
        client.check_account_of_token(account, &api)?;
        let token = match age {
            TokenAge::Current => TokenInRequest::Current,
            TokenAge::Replaced => TokenInRequest::Replaced,
        };
        (account, token, false)
    } else {
        let (account, is_from_appid_used) = client.account_without_token(&api, &query)?;
        (account, TokenInRequest::Absent, is_from_appid_used)
    };
    client.check_api(api.path)?;
    let target = match token {
        TokenInRequest::Foreign => query.target_without_token(api.path, is_from_appid_used),
        _ => query.target(api.path, is_from_appid_used),
    };
    let hides_token = access.hands_out_opaque() || key.is_some_and(|key| key.apis.is_limited());
    let key = key.map(|key| Arc::clone(&key.name));
    Ok(Admitted { account, token, target, key, hides_token })
}

/// What the token of a request stands for.
struct OpenedToken<'a> {
    account: usize,
    age: TokenAge,
    /// The key for which it was made, if it is an opaque token.
    key: Option<&'a Key>,
}

/// Returns what a token stands for; `None` if it is none that is handed out here. Opaque tokens count even where they are no longer
/// handed out: clients keep them until their end.
fn open<'a>(token: &str, access: &'a AccessRules, accounts: &Accounts) -> Option<OpenedToken<'a>> {
    match access.open_opaque(token, accounts) {
        Some(Opened { key, account, age, .. }) => {
            Some(OpenedToken { account, age, key: Some(key) })
        }
        None if access.hands_out_opaque() => None,
        None => {
            let (account, age) = accounts.recognize(token)?;
            Some(OpenedToken { account, age, key: None })
        }
    }
}

/// Who sends a request, as far as it is known.
struct ApiClient<'a> {
    address: ClientAddress,
    key: Option<&'a Key>,
    /// The platform at whose host the request is directed, as those of clients are whose hosts file leads here.
    platform: Option<Platform>,
    access: &'a AccessRules,
    accounts: &'a Accounts,
}

impl ApiClient<'_> {
    /// Fails if the client may not use the account whose token it has, or if the path names another one.
    fn check_account_of_token(
        &self,
        account: usize,
        api: &ApiPath<'_>,
    ) -> Result<(), GatewayRefusal> {
        let name = &self.accounts.names()[account];
        let is_named = api.account.is_none_or(|named| named == name);
        if !is_named || !self.scope().contains(name) {
            return Err(GatewayRefusal::UnknownToken);
        }
        self.check_account(account)
    }

    /// Returns the account in whose name a call without a token is made, and whether `from_appid` names it.
    fn account_without_token(
        &self,
        api: &ApiPath<'_>,
        query: &Query<'_>,
    ) -> Result<(usize, bool), GatewayRefusal> {
        match (&self.access.keys, self.key) {
            (Some(_), None) => return Err(GatewayRefusal::NoToken),
            (None, _) if !self.is_local() => return Err(GatewayRefusal::NotLocal),
            _ => {}
        }
        self.account_named(api, query).unwrap_or_else(|| {
            let visible = self.visible().filter(|account| {
                self.platform.is_none_or(|it| it == self.accounts.api(*account).platform())
            });
            Ok((keys::single_account(visible)?, false))
        })
    }

    /// Returns the account over whose way to WeChat a call is made that takes no token from here.
    fn account_on(
        &self,
        platform: Platform,
        api: &ApiPath<'_>,
        query: &Query<'_>,
    ) -> Result<(usize, bool), GatewayRefusal> {
        if self.access.keys.is_some() && self.key.is_none() {
            return Err(GatewayRefusal::ForeignWithoutKey);
        }
        if let Some(named) = self.account_named(api, query) {
            return named;
        }
        let fitting =
            self.visible().filter(|account| self.accounts.api(*account).platform() == platform);
        let fitting: Vec<_> = fitting.collect();
        // Of these, that of the call's own AppID comes first, if there is one.
        let of_appid = query.appid.as_deref().map(|appid| self.accounts.with_appid(appid));
        let own = of_appid.and_then(|own| fitting.iter().find(|it| own.contains(it)).copied());
        let account = own.or(fitting.first().copied());
        Ok((account.ok_or(GatewayRefusal::NoSuchAccount)?, false))
    }

    /// Returns the account that the request names by its path or by `from_appid`; `None` if it names none.
    fn account_named(
        &self,
        api: &ApiPath<'_>,
        query: &Query<'_>,
    ) -> Option<Result<(usize, bool), GatewayRefusal>> {
        let found = match (api.account, &query.from_appid) {
            (Some(name), _) => {
                let found = self.scope().find(self.accounts.names(), name);
                found.map(|account| (account, false))
            }
            (None, Some(appid)) => {
                let mut found = self.accounts.with_appid(appid);
                found.retain(|account| self.scope().contains(&self.accounts.names()[*account]));
                keys::single_account(found).map(|account| (account, true))
            }
            (None, None) => return None,
        };
        Some(found.map_err(GatewayRefusal::from).and_then(|(account, is_from_appid_used)| {
            self.check_account(account)?;
            Ok((account, is_from_appid_used))
        }))
    }

    /// The accounts that the client may use, by its key and its address.
    fn visible(&self) -> impl Iterator<Item = usize> {
        let visible = self.scope().indices(self.accounts.names());
        visible.filter(|account| self.check_account(*account).is_ok())
    }

    fn scope(&self) -> &AccountScope {
        self.key.map_or(&AccountScope::All, |key| &key.scope)
    }

    /// Fails if the client's address may not use this account.
    fn check_account(&self, account: usize) -> Result<(), GatewayRefusal> {
        match self.access.allows_account(self.address.peer(), account) {
            true => Ok(()),
            false => Err(GatewayRefusal::ForbiddenAccount),
        }
    }

    /// Fails if the client may not call the API at this path.
    ///
    /// Without a key the usual scope holds. That gives no client more than its key does: one whose key has a narrower scope
    /// is handed no token to call with.
    fn check_api(&self, path: &str) -> Result<(), GatewayRefusal> {
        let apis = self.key.map_or(&ApiScope::Usual, |key| &key.apis);
        match apis {
            _ if apis.allows(path) => Ok(()),
            ApiScope::Below(_) if ApiScope::Usual.allows(path) => Err(GatewayRefusal::ForbiddenApi),
            _ => Err(GatewayRefusal::Administration),
        }
    }

    /// Whether the client is a process of this host, as far as can be seen.
    fn is_local(&self) -> bool {
        match self.address {
            ClientAddress::Direct(Peer::Unix) => true,
            ClientAddress::Direct(Peer::Ip(ip)) => ip.is_loopback(),
            ClientAddress::Forwarded(_) => false,
        }
    }
}

/// Returns the platform at whose host a request is directed.
fn named_platform(headers: &HeaderMap) -> Option<Platform> {
    let host = values(headers, header::HOST).next()?.to_str().ok()?;
    host::platform_at(host)
}

#[cfg(test)]
mod tests;
