//! Where a Redis is, as people write it, checked. A password has no place in a URL, and what is refused is not repeated.
//! Connects to nobody.

use std::fmt;
use std::path::PathBuf;

use crate::model::secret;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A Redis: `redis://[USER@]HOST[:PORT][/DB]`, `rediss://` over TLS, `redis+unix:///PATH[?db=DB]`, or
/// `redis+sentinel://HOST[:PORT][,…]/MASTER[/DB]` and `rediss+sentinel://`, where the sentinels say which one it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RedisUrl {
    pub(crate) at: At,
    pub(crate) user: Option<String>,
    pub(crate) db: i64,
}

/// The way to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum At {
    Tcp { node: Node, is_tls: bool },
    Unix(PathBuf),
    Sentinel { nodes: Vec<Node>, master: String, is_tls: bool },
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) host: String,
    pub(crate) port: u16,
}

const FORMS: &str = "is not a Redis (like redis://host:6379, rediss://host, redis+unix:///run/redis.sock or \
                     redis+sentinel://host1,host2/mymaster)";

impl RedisUrl {
    /// Reads one; the error goes on after the name of what was read.
    pub(crate) fn parse(text: &str) -> Result<RedisUrl, &'static str> {
        if secret::may_hold_secret(text) {
            return Err(
                "has something in it that may be a secret; give the host's short name or its address",
            );
        }
        let (scheme, rest) = text.split_once("://").ok_or(FORMS)?;
        if scheme == "redis+unix" || scheme == "unix" {
            return RedisUrl::of_socket(rest);
        }
        if rest.contains(['?', '#']) {
            return Err("must not have a query or a fragment");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => {
                return Err(
                    "must not hold a password: put it into a file with mode 0600, and name that in \
                            [redis] password_file",
                );
            }
            Some((user, hosts)) => (Some(user).filter(|user| !user.is_empty()), hosts),
            None => (None, authority),
        };
        let is_tls = scheme.starts_with("rediss");
        let (at, db) = match scheme {
            "redis" | "rediss" => (At::Tcp { node: Node::parse(hosts, PORT)?, is_tls }, path),
            "redis+sentinel" | "rediss+sentinel" => {
                let nodes = hosts.split(',').map(|host| Node::parse(host, SENTINEL_PORT));
                let (master, db) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(
                        "does not say which master the sentinels are asked for; end it in /mymaster",
                    );
                }
                let nodes = nodes.collect::<Result<_, _>>()?;
                (At::Sentinel { nodes, master: master.to_owned(), is_tls }, db)
            }
            _ => return Err(FORMS),
        };
        Ok(RedisUrl { at, user: user.map(str::to_owned), db: number(db)? })
    }

    fn of_socket(rest: &str) -> Result<RedisUrl, &'static str> {
        let (path, db) = rest.split_once("?db=").unwrap_or((rest, ""));
        if !path.starts_with('/') || path.contains('?') {
            return Err(
                "is not a socket's absolute path (like redis+unix:///run/redis/redis.sock)",
            );
        }
        Ok(RedisUrl { at: At::Unix(PathBuf::from(path)), user: None, db: number(db)? })
    }

    /// Whether what is sent there is encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        match self.at {
            At::Tcp { is_tls, .. } | At::Sentinel { is_tls, .. } => is_tls,
            At::Unix(_) => false,
        }
    }
}

/// The number of a database; none is the first.
fn number(db: &str) -> Result<i64, &'static str> {
    match db {
        "" => Ok(0),
        db if db.len() <= 5 && db.bytes().all(|byte| byte.is_ascii_digit()) => {
            db.parse().map_err(|_| FORMS)
        }
        _ => Err("has something behind the host that is not the number of a database"),
    }
}

impl Node {
    fn parse(text: &str, port: u16) -> Result<Node, &'static str> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, given)) if !given.ends_with(']') => {
                (host, given.parse().map_err(|_| "has a port that is none")?)
            }
            _ => (text, port),
        };
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let is_of_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let is_host = match bare {
            Some(bare) => bare.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(is_of_host),
        };
        if is_host {
            Ok(Node { host: bare.unwrap_or(host).to_owned(), port })
        } else {
            Err("has no host")
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// For people: without its user.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = if self.is_tls() { "s" } else { "" };
        match &self.at {
            At::Tcp { node, .. } => write!(f, "redis{secure}://{node}")?,
            At::Unix(path) => write!(f, "redis+unix://{}", path.display())?,
            At::Sentinel { nodes, master, .. } => {
                let nodes: Vec<_> = nodes.iter().map(Node::to_string).collect();
                write!(f, "redis{secure}+sentinel://{}/{master}", nodes.join(","))?;
            }
        }
        match (&self.at, self.db) {
            (_, 0) => Ok(()),
            (At::Unix(_), db) => write!(f, "?db={db}"),
            (_, db) => write!(f, "/{db}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_is_read_as_it_is_written_and_shown_without_its_user() {
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
    fn what_is_no_redis_is_refused_and_no_password_is_repeated() {
        for (text, why) in [
            ("cache:6379", "is not a Redis"),
            ("http://cache", "is not a Redis"),
            ("redis://", "has no host"),
            ("redis://a b", "has no host"),
            ("redis://cache:port", "has a port"),
            ("redis://cache/one", "number of a database"),
            ("redis://cache/?x=1", "query"),
            ("redis+unix://run/redis.sock", "absolute path"),
            ("redis+sentinel://s1,s2", "which master"),
            ("redis://:hunter2@cache", "must not hold a password"),
            ("redis://wxtoken:hunter2@cache", "must not hold a password"),
            ("redis://5ec2e75ec2e75ec2e75ec2e75ec2e75e@cache", "may be a secret"),
        ] {
            let err = RedisUrl::parse(text).unwrap_err();
            assert!(err.contains(why), "{text}: {err}");
            assert!(!err.contains("hunter2"), "{err}");
        }
    }
}
