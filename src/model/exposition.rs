//! Prometheus's text format: how a metric is written, and those metrics of an account that both `/metrics` and
//! `status --format prometheus` write. Counts nothing.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>

use std::fmt::{Display, Write};

use time::UtcDateTime;

use crate::model::status::{AccountStatus, DocumentStatus, Published};

/// A metric: its name, its type and its help.
pub(crate) struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
}

impl Metric {
    /// A metric that goes up and down, or an instant.
    pub(crate) const fn gauge(name: &'static str, help: &'static str) -> Metric {
        Metric { name, kind: "gauge", help }
    }

    /// A metric that only goes up, and starts from 0 with the process.
    pub(crate) const fn counter(name: &'static str, help: &'static str) -> Metric {
        Metric { name, kind: "counter", help }
    }
}

// Instants rather than ages: an instant stays true in a file or in a database.

const TOKEN_CREATED: Metric = Metric::gauge(
    "wxtoken_token_created_timestamp_seconds",
    "When the published token was asked for; 0 if there is none.",
);

const TOKEN_EXPIRY: Metric = Metric::gauge(
    "wxtoken_token_expiry_timestamp_seconds",
    "When the published token ends; 0 if there is none.",
);

const TICKET_EXPIRY: Metric = Metric::gauge(
    "wxtoken_ticket_expiry_timestamp_seconds",
    "When the published ticket of this type ends; 0 if there is none.",
);

/// The labels of a metric that has one value.
pub(crate) const NO_LABELS: [(&str, &str); 0] = [];

/// The text written so far.
#[derive(Debug, Default)]
pub(crate) struct Exposition(String);

impl Exposition {
    /// Writes a metric with its samples, each being labels and a value; writes nothing if there are no samples.
    pub(crate) fn write<const N: usize, L: Display, V: Display>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = ([(&'static str, L); N], V)>,
    ) {
        let Metric { name, kind, help } = metric;
        for (i, (labels, value)) in samples.into_iter().enumerate() {
            if i == 0 {
                self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
            }
            let labels =
                labels.map(|(label, text)| format!("{label}=\"{}\"", escape(&text.to_string())));
            let labels = if N == 0 { String::new() } else { format!("{{{}}}", labels.join(",")) };
            self.push(format_args!("{name}{labels} {value}\n"));
        }
    }

    /// Writes when each account's token was created and when it expires.
    pub(crate) fn write_token_instants(&mut self, accounts: &[AccountStatus]) {
        let instants = |instant: fn(&Published) -> UtcDateTime| {
            accounts.iter().map(move |it| ([("account", &it.name)], secs(&it.token, instant)))
        };
        self.write(&TOKEN_CREATED, instants(|token| token.created_at));
        self.write(&TOKEN_EXPIRY, instants(|token| token.expires_at));
    }

    /// Writes when each account's tickets expire.
    pub(crate) fn write_ticket_instants(&mut self, accounts: &[AccountStatus]) {
        let expiries =
            tickets(accounts).map(|(labels, it)| (labels, secs(it, |ticket| ticket.expires_at)));
        self.write(&TICKET_EXPIRY, expiries);
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.0.write_fmt(text); // Writing to a String cannot fail.
    }
}

/// The tickets of these accounts, each with its labels.
pub(crate) fn tickets<'a>(
    accounts: impl IntoIterator<Item = &'a AccountStatus>,
) -> impl Iterator<Item = ([(&'static str, String); 2], &'a DocumentStatus)> {
    accounts.into_iter().flat_map(|account| {
        account.tickets.iter().map(|(kind, ticket)| {
            ([("account", account.name.clone()), ("type", kind.to_string())], ticket)
        })
    })
}

/// An instant of a document in Unix seconds; 0 if there is no document.
fn secs(document: &DocumentStatus, instant: fn(&Published) -> UtcDateTime) -> i64 {
    document.published.as_ref().map_or(0, |it| instant(it).unix_timestamp())
}

/// Escapes the value of a label.
fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use crate::model::kind::TicketType;
    use crate::model::status::Problem;

    const CALLS: Metric = Metric::counter("x_calls_total", "How often.");

    /// A document made at `created_at` that lives for two hours, in Unix seconds; 0 for none.
    fn document(created_at: i64) -> DocumentStatus {
        let at = |secs| UtcDateTime::UNIX_EPOCH + time::Duration::seconds(secs);
        let published = (created_at > 0).then(|| Published {
            appid: "wx1".to_owned(),
            created_at: at(created_at),
            expires_at: at(created_at + 7200),
            expires_in: Duration::from_secs(7200),
            life: Duration::from_secs(7200),
            is_due: false,
            fingerprint: String::new(),
        });
        DocumentStatus {
            place: String::new(),
            published: published.ok_or(Problem::Missing),
            is_dead: false,
            failure: None,
            trouble_since: None,
            refusal: None,
        }
    }

    #[test]
    fn each_account_has_the_instants_of_its_documents_and_0_where_there_is_none() {
        let account = |name: &str, token, ticket| AccountStatus {
            name: name.to_owned(),
            appid: None,
            token: document(token),
            tickets: vec![(TicketType::parse("jsapi").unwrap(), document(ticket))],
            refresh: None,
        };
        let accounts = [account("shop", 1000, 2000), account("mall", 0, 0)];
        let mut exposition = Exposition::default();
        exposition.write_token_instants(&accounts);
        exposition.write_ticket_instants(&accounts);
        let text = exposition.into_text();
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            r#"wxtoken_token_created_timestamp_seconds{account="shop"} 1000"#,
            r#"wxtoken_token_created_timestamp_seconds{account="mall"} 0"#,
            r#"wxtoken_token_expiry_timestamp_seconds{account="shop"} 8200"#,
            r#"wxtoken_token_expiry_timestamp_seconds{account="mall"} 0"#,
            r#"wxtoken_ticket_expiry_timestamp_seconds{account="shop",type="jsapi"} 9200"#,
            r#"wxtoken_ticket_expiry_timestamp_seconds{account="mall",type="jsapi"} 0"#,
        ];
        assert_eq!(samples, expected);
    }

    #[test]
    fn a_metric_is_written_as_help_type_and_a_line_for_each_sample() {
        let mut exposition = Exposition::default();
        exposition.write(&Metric::gauge("x_open", "How many."), [(NO_LABELS, 7)]);
        exposition.write(&CALLS, [([("a", "1"), ("b", "2")], 3), ([("a", "x"), ("b", "")], 0)]);
        let expected = "# HELP x_open How many.\n# TYPE x_open gauge\nx_open 7\n\
                        # HELP x_calls_total How often.\n# TYPE x_calls_total counter\n\
                        x_calls_total{a=\"1\",b=\"2\"} 3\nx_calls_total{a=\"x\",b=\"\"} 0\n";
        assert_eq!(exposition.into_text(), expected);
    }

    #[test]
    fn a_metric_without_samples_is_not_written() {
        let mut exposition = Exposition::default();
        exposition.write(&CALLS, [([("a", ""); 1], 0); 0]);
        assert_eq!(exposition.into_text(), "");
    }

    #[test]
    fn label_values_are_escaped() {
        let mut exposition = Exposition::default();
        exposition.write(&CALLS, [([("a", "x\"} 9\n\\")], 1)]);
        let text = exposition.into_text();
        assert_eq!(text.lines().last(), Some(r#"x_calls_total{a="x\"} 9\n\\"} 1"#));
    }
}
