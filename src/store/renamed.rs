//! Documents of accounts whose name in the config has changed. They lie beside the others, and no account has them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{Found, reader};
use crate::model::kind::DocumentKind;
use crate::os::thread::lock;
use crate::os::timestamp::Timestamp;

/// Finds the document of an account that had another name before.
pub(super) struct RenamedDocuments {
    /// The names of the files that are documents of accounts.
    in_use: HashSet<OsString>,
    /// What was found in each directory. Each is read once: a thousand new accounts would else read it a thousand times.
    found: Mutex<HashMap<PathBuf, Arc<HashMap<String, PathBuf>>>>,
}

impl RenamedDocuments {
    /// Returns the finder for a config whose accounts have the documents with these names.
    pub(super) fn new(in_use: HashSet<OsString>) -> RenamedDocuments {
        RenamedDocuments { in_use, found: Mutex::default() }
    }

    /// Returns the token's document in this directory that has this AppID and no account, as it was when one was first looked for
    /// there. If there are several it is the one that lives longest.
    pub(super) fn find(&self, dir: &Path, appid: &str, now: Timestamp) -> Option<PathBuf> {
        let found = {
            let mut all = lock(&self.found);
            let found = all.entry(dir.to_owned());
            Arc::clone(found.or_insert_with(|| Arc::new(self.read(dir, now))))
        };
        found.get(appid).cloned()
    }

    /// Returns the paths of such documents by AppID.
    fn read(&self, dir: &Path, now: Timestamp) -> HashMap<String, PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name());
        let mut longest = HashMap::new();
        for name in names.filter(|name| name.as_bytes().ends_with(b".json")) {
            let path = dir.join(&name);
            if !self.in_use.contains(&name)
                && let Ok(Found::Document(it)) = reader::read(&path, &DocumentKind::Token)
            {
                let found = (it.left(now), path);
                let known = longest.entry(it.appid).or_insert_with(|| found.clone());
                if known.0 < found.0 {
                    *known = found;
                }
            }
        }
        longest.into_iter().map(|(appid, (_, path))| (appid, path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::document::Document;
    use crate::model::secret::Secret;
    use crate::os::clock::{Clock, SystemClock};

    #[test]
    fn of_several_documents_the_one_that_lives_longest_is_found_and_none_of_an_account() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemClock.now();
        for (name, appid, life) in [
            ("old.json", "wx1", 100),
            ("older.json", "wx1", 50),
            ("shop.json", "wx1", 7200),
            ("other.json", "wx2", 60),
            ("notes.txt", "wx1", 7200),
        ] {
            let token = Secret::new("T".to_owned());
            let document = Document::new(appid, token, Duration::from_secs(life), now);
            fs::write(dir.path().join(name), document.to_line(&DocumentKind::Token).expose())
                .unwrap();
        }
        fs::write(dir.path().join("half.json"), "{").unwrap();
        let documents = RenamedDocuments::new(HashSet::from(["shop.json".into()]));
        let find = |appid| documents.find(dir.path(), appid, now);
        assert_eq!(find("wx1"), Some(dir.path().join("old.json")));
        assert_eq!(find("wx2"), Some(dir.path().join("other.json")));
        assert_eq!(find("wx3"), None);
        assert_eq!(documents.find(&dir.path().join("none"), "wx1", now), None);
    }
}
