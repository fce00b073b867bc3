//! The credential a client shows, and where it gets another one when the daemon no longer takes it.
//!
//! * It is shown to the daemon in `Authorization` and to nobody else: it has no readable `Debug` and is wiped from memory.
//! * However many requests meet its end at once, the provider is asked once.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::ClientError;
use crate::sync::{Arc, Mutex};

/// How long a provider may take: beyond it, whoever waits for the new credential fails instead of hanging with it.
pub const PROVIDER_WAIT_MAX: Duration = Duration::from_secs(30);

/// An API key, a JWT, or any other secret text.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(Zeroizing<String>);

impl Credential {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

impl From<String> for Credential {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for Credential {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl<'de> Deserialize<'de> for Credential {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl Serialize for Credential {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

type Asked = Pin<Box<dyn Future<Output = Option<Credential>> + Send>>;
/// Answers with a new credential, or with none.
pub(super) type Provider = Box<dyn Fn() -> Asked + Send + Sync>;

/// The credential in force, of one client and all its clones.
pub(super) struct Credentials {
    held: Mutex<Held>,
    provider: Option<Provider>,
    /// Held by whoever asks the provider.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
pub(super) struct Held {
    pub(super) credential: Option<Arc<Credential>>,
    /// Grows with every renewal, so that whoever was refused knows whether it was under the one in force.
    pub(super) generation: u64,
}

impl Credentials {
    pub(super) fn new(credential: Option<Credential>, provider: Option<Provider>) -> Self {
        let held = Held { credential: credential.map(Arc::new), generation: 0 };
        Self { held: Mutex::new(held), provider, asking: tokio::sync::Mutex::new(()) }
    }

    /// The one in force.
    pub(super) fn held(&self) -> Held {
        self.held.lock().clone()
    }

    /// Has another one put in force than that of `generation`; answers whether there is one now.
    pub(super) async fn renew(&self, generation: u64) -> Result<bool, ClientError> {
        let Some(provider) = &self.provider else { return Ok(false) };
        let asking = async {
            let _alone = self.asking.lock().await;
            if self.held.lock().generation != generation {
                return true; // somebody else was first
            }
            let Some(credential) = provider().await else { return false };
            let mut held = self.held.lock();
            *held = Held { credential: Some(Arc::new(credential)), generation: generation + 1 };
            true
        };
        let limit = PROVIDER_WAIT_MAX;
        timeout(limit, asking).await.map_err(|_| ClientError::Timeout("a new credential", limit))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let credential = Credential::from("nwk_a_hidden");
        assert_eq!(format!("{credential:?}"), "Credential(…)");
        assert_eq!(credential.expose(), "nwk_a_hidden");
    }

    #[tokio::test]
    async fn whoever_was_refused_together_asks_once() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let provider: Provider = Box::new(move || {
            let n = counted.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                tokio::task::yield_now().await;
                (n < 2).then(|| format!("token {n}").into())
            })
        });
        let credentials = Credentials::new(Some("old".into()), Some(provider));
        let (a, b, c) = tokio::join!(credentials.renew(0), credentials.renew(0), credentials.renew(0));
        assert_eq!((a.unwrap(), b.unwrap(), c.unwrap(), asked.load(Ordering::SeqCst)), (true, true, true, 1));
        assert_eq!(credentials.held().credential.unwrap().expose(), "token 0");
        assert!(credentials.renew(1).await.unwrap());
        assert!(!credentials.renew(2).await.unwrap(), "the provider has no more");
        assert_eq!(credentials.held().generation, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_never_answers_is_a_timeout() {
        let provider: Provider = Box::new(|| Box::pin(std::future::pending()));
        let error = Credentials::new(None, Some(provider)).renew(0).await.unwrap_err();
        assert!(matches!(error, ClientError::Timeout("a new credential", PROVIDER_WAIT_MAX)), "{error}");
        assert!(!Credentials::new(None, None).renew(0).await.unwrap());
    }
}
