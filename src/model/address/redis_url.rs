//! URLs of Redis servers, as users write them. Refuses passwords in them, and errors repeat nothing of the text. Connects
//! to nothing.

use std::fmt;
use std::path::PathBuf;

use super::faults;
use super::host_port::{Host, HostPort};
use crate::model::secret;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A Redis server: `redis://[USER@]HOST[:PORT][/DB]`, `rediss://` over TLS, `redis+unix:///PATH[?db=DB]`, or
/// `redis+sentinel://HOST[:PORT][,…]/MASTER[/DB]` and `rediss+sentinel://`, whose sentinels name the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RedisUrl {
    pub(crate) address: RedisAddress,
    pub(crate) user: Option<String>,
    pub(crate) db: i64,
}

/// How to reach a Redis server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RedisAddress {
    Tcp { node: RedisNode, is_tls: bool },
    Unix(PathBuf),
    Sentinel { nodes: Vec<RedisNode>, master: String, is_tls: bool },
}

/// Host and port of a Redis server or sentinel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RedisNode {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl RedisUrl {
    /// Parses a URL. The error says what to do, and repeats nothing of it.
    pub(crate) fn parse(text: &str) -> Result<RedisUrl, &'static str> {
        if secret::may_hold_secret(text) {
            return Err(faults::REDIS_LIKE_SECRET);
        }
        let (scheme, rest) = text.split_once("://").ok_or(faults::NO_REDIS)?;
        if scheme == "redis+unix" || scheme == "unix" {
            return RedisUrl::parse_socket(rest);
        }
        if rest.contains(['?', '#']) {
            return Err(faults::HAS_QUERY);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => {
                return Err(faults::REDIS_PASSWORD);
            }
            Some((user, hosts)) => (Some(user).filter(|user| !user.is_empty()), hosts),
            None => (None, authority),
        };
        let is_tls = scheme.starts_with("rediss");
        let (address, db) = match scheme {
            "redis" | "rediss" => {
                (RedisAddress::Tcp { node: RedisNode::parse(hosts, PORT)?, is_tls }, path)
            }
            "redis+sentinel" | "rediss+sentinel" => {
                let nodes = hosts.split(',').map(|host| RedisNode::parse(host, SENTINEL_PORT));
                let (master, db) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(faults::NO_MASTER);
                }
                if !master.chars().all(is_name_char) {
                    return Err(faults::INVALID_MASTER);
                }
                let nodes = nodes.collect::<Result<_, _>>()?;
                (RedisAddress::Sentinel { nodes, master: master.to_owned(), is_tls }, db)
            }
            _ => return Err(faults::NO_REDIS),
        };
        Ok(RedisUrl { address, user: user.map(str::to_owned), db: parse_db(db)? })
    }

    fn parse_socket(rest: &str) -> Result<RedisUrl, &'static str> {
        let (path, db) = rest.split_once("?db=").unwrap_or((rest, ""));
        if !path.starts_with('/') || path.contains('?') {
            return Err(faults::NO_SOCKET);
        }
        Ok(RedisUrl {
            address: RedisAddress::Unix(PathBuf::from(path)),
            user: None,
            db: parse_db(db)?,
        })
    }

    /// Whether the connection is encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        match self.address {
            RedisAddress::Tcp { is_tls, .. } | RedisAddress::Sentinel { is_tls, .. } => is_tls,
            RedisAddress::Unix(_) => false,
        }
    }
}

/// Whether the name of a host or of a master may contain this character. Redis itself takes no other for a master (`sentinel
/// monitor`).
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')
}

/// Parses the number of a database; empty means 0.
fn parse_db(db: &str) -> Result<i64, &'static str> {
    match db {
        "" => Ok(0),
        db if db.len() <= 5 && db.bytes().all(|byte| byte.is_ascii_digit()) => {
            db.parse().map_err(|_| faults::NO_REDIS)
        }
        _ => Err(faults::NO_DATABASE),
    }
}

impl RedisNode {
    fn parse(text: &str, default_port: u16) -> Result<RedisNode, &'static str> {
        let HostPort { host, port } = HostPort::parse(text).ok_or(faults::NO_PORT)?;
        let host = match host {
            Host::V6(ip) => ip.to_string(),
            Host::Name(name) if !name.is_empty() && name.chars().all(is_name_char) => {
                name.to_owned()
            }
            Host::Name(_) => return Err(faults::NO_HOST),
        };
        Ok(RedisNode { host, port: port.unwrap_or(default_port) })
    }
}

impl fmt::Display for RedisNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// For messages: without the user.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = if self.is_tls() { "s" } else { "" };
        match &self.address {
            RedisAddress::Tcp { node, .. } => write!(f, "redis{secure}://{node}")?,
            RedisAddress::Unix(path) => write!(f, "redis+unix://{}", path.display())?,
            RedisAddress::Sentinel { nodes, master, .. } => {
                let nodes: Vec<_> = nodes.iter().map(RedisNode::to_string).collect();
                write!(f, "redis{secure}+sentinel://{}/{master}", nodes.join(","))?;
            }
        }
        match (&self.address, self.db) {
            (_, 0) => Ok(()),
            (RedisAddress::Unix(_), db) => write!(f, "?db={db}"),
            (_, db) => write!(f, "/{db}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_url_is_shown_with_its_port_and_without_its_user() {
        for (text, shown) in [
            ("redis://cache", "redis://cache:6379"),
            ("redis://wxtoken@10.0.0.5:6380/2", "redis://10.0.0.5:6380/2"),
            ("rediss://cache.example.com/", "rediss://cache.example.com:6379"),
            ("redis://[::1]", "redis://[::1]:6379"),
            ("redis://[::1]:7000/1", "redis://[::1]:7000/1"),
            ("redis+unix:///run/redis/redis.sock?db=3", "redis+unix:///run/redis/redis.sock?db=3"),
            ("redis+sentinel://s1,s2:26380/main/1", "redis+sentinel://s1:26379,s2:26380/main/1"),
            ("rediss+sentinel://u@s1/main", "rediss+sentinel://s1:26379/main"),
        ] {
            assert_eq!(RedisUrl::parse(text).unwrap().to_string(), shown);
        }
        let with_user = RedisUrl::parse("redis://wxtoken@cache").unwrap();
        assert_eq!(with_user.user.as_deref(), Some("wxtoken"));
    }

    #[test]
    fn invalid_redis_urls_are_refused_and_no_password_is_repeated() {
        for (text, problem) in [
            ("cache:6379", "Write a Redis"),
            ("http://cache", "Write a Redis"),
            ("redis://", "it has none"),
            ("redis://a b", "it has none"),
            ("redis://cache:port", "Write a port"),
            ("redis://cache/one", "number of a database"),
            ("redis://cache/?x=1", "query"),
            ("redis+unix://run/redis.sock", "absolute path"),
            ("redis+sentinel://s1,s2", "which master"),
            // A password in the wrong place.
            ("redis+sentinel://s1,s2/wxtoken:hunter2@main/1", "Correct the master's name"),
            ("redis://:hunter2@cache", "Put the password into a file"),
            ("redis://wxtoken:hunter2@cache", "Put the password into a file"),
            ("redis://5ec2e75ec2e75ec2e75ec2e75ec2e75e@cache", "may be a secret"),
        ] {
            let err = RedisUrl::parse(text).unwrap_err();
            assert!(err.contains(problem), "{text}: {err}");
            assert!(!err.contains("hunter2"), "{err}");
        }
    }
}
