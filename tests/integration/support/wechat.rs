//! WeChat's mock, as tests control and observe it.

use std::net::SocketAddr;

use serde_json::Value;

use super::{APPID, SECRET, Server, wxtoken};

/// A running `wxtoken mock` that knows the account of sandboxes.
pub(crate) struct WeChat {
    server: Server,
}

impl WeChat {
    pub(crate) fn start() -> WeChat {
        WeChat::with(&[])
    }

    pub(crate) fn with(args: &[&str]) -> WeChat {
        let mut command = wxtoken();
        command
            .args(["mock", "--listen", "127.0.0.1:0", "--account", &format!("{APPID}:{SECRET}")])
            .args(args);
        WeChat { server: Server::start(command, 1) }
    }

    pub(crate) fn url(&self) -> String {
        self.server.addresses[0].clone()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Makes it answer with this fault from now on. `none` ends a fault.
    #[track_caller]
    pub(crate) fn fault(&self, fault: &str) {
        let response = self.server.post("/mock/fault", fault);
        assert!(
            (200..300).contains(&response.status),
            "{fault}: {} {}",
            response.status,
            response.body
        );
    }

    /// Returns each fault that it knows, with an example of its number.
    pub(crate) fn faults(&self) -> Vec<String> {
        let listed = self.server.get("/mock/faults").json();
        let entries = listed.as_array().expect("a list").iter();
        entries.map(|entry| entry["example"].as_str().expect("an example").to_owned()).collect()
    }

    /// Invalidates every live token.
    #[track_caller]
    pub(crate) fn kill_tokens(&self) {
        assert!((200..300).contains(&self.server.post("/mock/kill", "").status));
    }

    /// Returns how many requests it had, by route.
    pub(crate) fn calls(&self) -> Value {
        self.server.get("/mock/calls").json()
    }

    /// Returns how many requests for a token it had, on any API.
    pub(crate) fn asked(&self) -> u64 {
        let calls = self.calls();
        ["token", "stable_token", "gettoken"].map(|api| calls[api].as_u64().unwrap()).iter().sum()
    }

    /// Returns how many requests that check a token it had.
    pub(crate) fn probes(&self) -> u64 {
        self.calls()["get_api_domain_ip"].as_u64().unwrap()
    }

    /// Returns how many tokens it has minted.
    pub(crate) fn mints(&self) -> u64 {
        self.calls()["mints"].as_u64().unwrap()
    }

    /// Returns whether it accepts this token.
    pub(crate) fn is_alive(&self, token: &str) -> bool {
        let path = format!("/cgi-bin/get_api_domain_ip?access_token={token}");
        self.server.get(&path).json()["ip_list"][0].is_string()
    }
}
