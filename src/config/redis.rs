//! Reads `store` and `[redis]` of the config file: the Redis that several hosts share. Connects to nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::table::{Table, Value};
use crate::model::address::redis_url::RedisUrl;
use crate::model::location::{AlsoFormat, AlsoKey, RedisSettings};

/// What the names of all keys begin with by default.
const DEFAULT_PREFIX: &str = "wxtoken";

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// No refresh has the time to wait longer for an answer.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest key of `also`, in bytes.
const MAX_KEY: usize = 256;

/// Returns the Redis that the file names, if there is one.
pub(super) fn read(top: &mut Table<'_>) -> Option<Arc<RedisSettings>> {
    let url = top.get("store", read_url);
    let settings = top.table("redis", RedisTable::read);
    if settings.as_ref().is_some_and(|settings| !settings.is_empty) && !top.has("store") {
        top.report(
            "redis",
            "goes with store, which says where that Redis is (store = \"redis://host\")",
        );
    }
    let settings = settings.unwrap_or_default();
    let url = url?;
    if settings.ca_file.is_some() && !url.is_tls() {
        top.report(
            "store",
            "does not begin with rediss://, and [redis] has a ca_file, which is for TLS",
        );
    }
    if (settings.user.is_some() || url.user.is_some()) && settings.password_file.is_none() {
        top.report(
            "store",
            "has a user without a password; name the file with it in [redis] password_file",
        );
    }
    Some(Arc::new(RedisSettings {
        url,
        user: settings.user,
        password_file: settings.password_file,
        ca_file: settings.ca_file,
        prefix: settings.prefix.unwrap_or_else(|| DEFAULT_PREFIX.to_owned()),
        timeout: settings.timeout.unwrap_or(DEFAULT_TIMEOUT),
        also: settings.also,
    }))
}

/// `[redis]`.
#[derive(Default)]
struct RedisTable {
    is_empty: bool,
    user: Option<String>,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    prefix: Option<String>,
    timeout: Option<Duration>,
    also: Vec<AlsoKey>,
}

impl RedisTable {
    fn read(table: &mut Table<'_>) -> RedisTable {
        let settings = RedisTable {
            is_empty: table.is_empty(),
            user: table.get("user", read_user),
            password_file: table.get("password_file", Value::path),
            ca_file: table.get("ca_file", Value::path),
            prefix: table.get("prefix", read_prefix),
            timeout: table.get("timeout", read_timeout),
            also: read_also(table),
        };
        if table.has("password") {
            table.mark_known("password");
            table.report(
                "password",
                "has no place here: put it into a file with mode 0600, and name that in password_file",
            );
        }
        settings
    }
}

/// The keys under which SDKs look for the bare token.
fn read_also(table: &mut Table<'_>) -> Vec<AlsoKey> {
    let example = "{ key = \"app:{appid}:token\", format = \"text\" }";
    let rows = table.table_list("also", example, |row| {
        let key = row.require("key", "it has no key", read_also_key);
        let format = row.require("format", "it has no format", read_also_format);
        Some(AlsoKey { key: key?, format: format? })
    });
    rows.into_iter().flatten().collect()
}

fn read_also_key(value: Value<'_>) -> Result<String, String> {
    let text = value.text()?;
    if text.len() > MAX_KEY || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("is no key (printable ASCII without blanks, 256 at most)".to_owned());
    }
    if !text.contains("{appid}") && !text.contains("{account}") {
        return Err(
            "has neither {appid} nor {account} in it: two accounts would have one key".to_owned()
        );
    }
    let rest = text.replace("{appid}", "").replace("{account}", "");
    match rest.contains(['{', '}']) {
        true => Err("has something else than {appid} or {account} in braces".to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn read_also_format(value: Value<'_>) -> Result<AlsoFormat, String> {
    match value.text()? {
        "text" => Ok(AlsoFormat::Text),
        "json-string" => Ok(AlsoFormat::JsonString),
        _ => Err("there is no such format; there are text, json-string".to_owned()),
    }
}

fn read_url(value: Value<'_>) -> Result<RedisUrl, String> {
    Ok(RedisUrl::parse(value.secret_text()?)?)
}

fn read_user(value: Value<'_>) -> Result<String, String> {
    match value.text()? {
        "" => Err("is empty".to_owned()),
        user => Ok(user.to_owned()),
    }
}

fn read_prefix(value: Value<'_>) -> Result<String, String> {
    let text = value.text()?;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":_-./".contains(&byte);
    match (1..=64).contains(&text.len()) && text.bytes().all(is_allowed) {
        true => Ok(text.to_owned()),
        false => {
            Err("is no prefix of keys (letters, digits, and : _ - . /; 64 at most)".to_owned())
        }
    }
}

fn read_timeout(value: Value<'_>) -> Result<Duration, String> {
    match value.positive_duration()? {
        long if long > MAX_TIMEOUT => {
            Err("is longer than 10s, which a refresh cannot wait".to_owned())
        }
        timeout => Ok(timeout),
    }
}
