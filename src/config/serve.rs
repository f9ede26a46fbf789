//! How `serve` serves: `[serve]` of the config file, and what flags and defaults make of it.

use std::path::PathBuf;
use std::time::Duration;

use super::file::read_network;
use super::table::{Table, Value};
use crate::cli::{ServeArgs, values};
use crate::model::address::listen::Listen;
use crate::model::address::server_name::ServerName;

const DEFAULT_LISTEN: &str = "127.0.0.1:7200";
const DEFAULT_MAX_CONNECTIONS: u32 = 1024;

/// `[serve]`, as far as it is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FileServe {
    listen: Option<Vec<String>>,
    allow: Option<Vec<String>>,
    allow_file: Option<PathBuf>,
    trusted_proxies: Option<Vec<String>>,
    server_names: Option<Vec<String>>,
    keys: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_client_ca: Option<PathBuf>,
    pub(super) refresh: Option<bool>,
    gateway: Option<bool>,
    sdk_life: Option<Duration>,
    opaque_tokens: Option<bool>,
    max_connections: Option<u32>,
}

impl FileServe {
    pub(super) fn from_table(table: &mut Table<'_>) -> FileServe {
        FileServe {
            listen: table.nonempty_list("listen", read_listen),
            allow: table.nonempty_list("allow", read_network),
            allow_file: table.get("allow_file", Value::path),
            trusted_proxies: table.list("trusted_proxies", read_trusted_proxy),
            server_names: table.nonempty_list("server_names", read_server_name),
            keys: table.get("keys", Value::path),
            tls_cert: table.get("tls_cert", Value::path),
            tls_key: table.get("tls_key", Value::path),
            tls_client_ca: table.get("tls_client_ca", Value::path),
            refresh: table.get("refresh", Value::boolean),
            gateway: table.get("gateway", Value::boolean),
            sdk_life: table.get("sdk_life", read_sdk_life),
            opaque_tokens: table.get("opaque_tokens", Value::boolean),
            max_connections: table.get("max_connections", read_max_connections),
        }
    }
}

/// How `serve` serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServeSettings {
    pub(crate) listen: Vec<String>,
    pub(crate) allow: Vec<String>,
    pub(crate) allow_file: Option<PathBuf>,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) server_names: Vec<String>,
    pub(crate) keys: Option<PathBuf>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) tls_client_ca: Option<PathBuf>,
    pub(crate) refresh: bool,
    pub(crate) gateway: bool,
    /// How much life of a token SDKs are told at most.
    pub(crate) sdk_life: Option<Duration>,
    pub(crate) opaque_tokens: bool,
    pub(crate) max_connections: u32,
}

impl ServeSettings {
    /// Merges flags, `[serve]` and defaults, in this order.
    pub(super) fn new(flags: &ServeArgs, file: &FileServe) -> ServeSettings {
        let path = |flag: &Option<PathBuf>, file: &Option<PathBuf>| flag.clone().or(file.clone());
        // A flag that is given has at least one value.
        let list = |flag: &[String], file: &Option<Vec<String>>| match flag {
            [] => file.clone().unwrap_or_default(),
            flag => flag.to_owned(),
        };
        let mut listen = list(&flags.listen, &file.listen);
        if listen.is_empty() {
            listen.push(DEFAULT_LISTEN.to_owned());
        }
        let max_connections = flags.max_connections.or(file.max_connections);
        ServeSettings {
            listen,
            allow: list(&flags.allow, &file.allow),
            allow_file: path(&flags.allow_file, &file.allow_file),
            trusted_proxies: list(&flags.trusted_proxy, &file.trusted_proxies),
            server_names: list(&flags.server_name, &file.server_names),
            keys: path(&flags.keys, &file.keys),
            tls_cert: path(&flags.tls_cert, &file.tls_cert),
            tls_key: path(&flags.tls_key, &file.tls_key),
            tls_client_ca: path(&flags.tls_client_ca, &file.tls_client_ca),
            refresh: flags.refresh.or(file.refresh).unwrap_or(false),
            gateway: flags.gateway.or(file.gateway).unwrap_or(false),
            sdk_life: flags.sdk_life.or(file.sdk_life),
            opaque_tokens: flags.opaque_tokens.or(file.opaque_tokens).unwrap_or(false),
            max_connections: max_connections.unwrap_or(DEFAULT_MAX_CONNECTIONS),
        }
    }

    /// Whether it differs from `at_start` in a setting that takes effect only when the process starts.
    pub(crate) fn needs_restart(&self, at_start: &ServeSettings) -> bool {
        let ServeSettings { listen, tls_cert, tls_key, tls_client_ca, max_connections, .. } =
            at_start;
        (listen, max_connections) != (&self.listen, &self.max_connections)
            || (tls_cert, tls_key, tls_client_ca)
                != (&self.tls_cert, &self.tls_key, &self.tls_client_ca)
    }
}

fn read_trusted_proxy(value: Value<'_>) -> Result<String, String> {
    if value.text()?.trim() == "unix" { Ok("unix".to_owned()) } else { read_network(value) }
}

fn read_server_name(value: Value<'_>) -> Result<String, String> {
    let text = value.text()?.trim();
    ServerName::parse(text).map(|_| text.to_owned()).map_err(str::to_owned)
}

fn read_listen(value: Value<'_>) -> Result<String, String> {
    let text = value.text()?.trim();
    let text = match text.strip_prefix("unix:") {
        // As it stands, an abstract name is refused.
        Some(path) if !path.is_empty() && !path.starts_with('@') => {
            let path = value.resolve(path);
            format!("unix:{}", std::path::absolute(&path).unwrap_or(path).display())
        }
        _ => text.to_owned(),
    };
    Listen::parse(&text).map(|_| text).map_err(str::to_owned)
}

fn read_sdk_life(value: Value<'_>) -> Result<Duration, String> {
    match value.is_integer() {
        true => values::parse_sdk_life(&value.integer()?.to_string()),
        false => values::parse_sdk_life(value.text()?),
    }
}

fn read_max_connections(value: Value<'_>) -> Result<u32, String> {
    values::parse_max_connections(&value.integer()?.to_string())
}
