//! Java as tests run it: started in the cheapest way, for each program lives for seconds.

use std::path::Path;
use std::process::Command;

use super::Run;

/// The options of each Java: no compiler that optimizes, one thread to collect garbage, no file of counters.
const OPTIONS: [&str; 3] = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData"];

/// Returns a program of the JDK with these options.
fn tool(name: &str) -> Command {
    let mut tool = Command::new(name);
    tool.args(OPTIONS.map(|option| format!("-J{option}")));
    tool
}

/// Compiles a source file to classes in `dir`.
#[track_caller]
pub(crate) fn java_compile(source: &Path, dir: &Path) {
    let mut javac = tool("javac");
    javac.arg("-d").arg(dir).arg(source);
    Run::new(javac).exits(0);
}

/// Puts a CA certificate into the new trust store `store`.
#[track_caller]
pub(crate) fn java_import(ca: &Path, store: &Path) {
    let mut keytool = tool("keytool");
    keytool.args(["-importcert", "-noprompt", "-alias", "wxtoken", "-storepass", "changeit"]);
    keytool.arg("-file").arg(ca).arg("-keystore").arg(store);
    Run::new(keytool).exits(0);
}

/// Returns the command `java` with this trust store, without a program.
pub(crate) fn java_trusting(store: &Path) -> Command {
    let mut java = Command::new("java");
    java.args(OPTIONS).arg(format!("-Djavax.net.ssl.trustStore={}", store.display()));
    java.arg("-Djavax.net.ssl.trustStorePassword=changeit");
    java
}
