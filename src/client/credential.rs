//! The credential of a client, and how it is replaced when the daemon no longer accepts it.
//!
//! * It is sent to the daemon in `Authorization` and nowhere else. `Debug` does not show it, and it is wiped
//!   from memory.
//! * When many requests find at once that it has expired, the provider is called once. All of them wait on
//!   the same call, and each one that is polled drives it, so a caller that stops polling blocks nobody.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Shared, WeakShared};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::ClientError;
use crate::sync::{Arc, Mutex};

/// Maximum time for a provider. After it, everyone who waits for the new credential gets an error.
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
/// Returns a new credential, or `None`.
pub(super) type Provider = Box<dyn Fn() -> Asked + Send + Sync>;

/// The provider's result, or an error if it timed out.
type Answer = Result<Option<Arc<Credential>>, ()>;
/// One call of the provider, shared by all who wait for its result.
type Question = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The current credential of a client and all its clones.
pub(super) struct Credentials {
    held: Mutex<Held>,
    provider: Option<Provider>,
    /// The running call of the provider, while somebody waits for its result, and the generation that it
    /// replaces.
    asking: Mutex<Option<(u64, WeakShared<Question>)>>,
}

#[derive(Clone, Default)]
pub(super) struct Held {
    pub(super) credential: Option<Arc<Credential>>,
    /// Grows with every renewal, so a refused request can see whether it used the current credential.
    pub(super) generation: u64,
}

impl Credentials {
    pub(super) fn new(credential: Option<Credential>, provider: Option<Provider>) -> Self {
        let held = Held { credential: credential.map(Arc::new), generation: 0 };
        Self { held: Mutex::new(held), provider, asking: Mutex::default() }
    }

    /// The current credential.
    pub(super) fn held(&self) -> Held {
        self.held.lock().clone()
    }

    /// Replaces the credential of `generation` with a new one. Returns whether a newer one is in use now.
    pub(super) async fn renew(&self, generation: u64) -> Result<bool, ClientError> {
        let Some(provider) = &self.provider else { return Ok(false) };
        let Some(question) = self.ask(provider, generation) else { return Ok(true) };
        // A clone, so that the call lives until its result is in use: see `ask`.
        let answer = question.clone().await;
        let answer = answer.map_err(|()| ClientError::Timeout("a new credential", PROVIDER_WAIT_MAX))?;
        let Some(credential) = answer else { return Ok(false) };
        let mut held = self.held.lock();
        if held.generation == generation {
            *held = Held { credential: Some(credential), generation: generation + 1 };
        }
        Ok(true)
    }

    /// Joins the running call for this generation, or starts one. `None`: the credential was already
    /// replaced.
    fn ask(&self, provider: &Provider, generation: u64) -> Option<Shared<Question>> {
        let mut asking = self.asking.lock();
        let asked = asking.as_ref().filter(|(about, _)| *about == generation);
        let asked = asked.and_then(|(_, asked)| asked.upgrade());
        // A call that gave no credential is made again.
        let asked = asked.filter(|asked| !matches!(asked.peek(), Some(Ok(None) | Err(()))));
        if asked.is_some() {
            return asked;
        }
        // Nobody waits for a call, so a credential from an earlier one is already in use.
        if self.held.lock().generation != generation {
            return None;
        }
        let answer = timeout(PROVIDER_WAIT_MAX, provider());
        let question: Question =
            Box::pin(answer.map(|given| given.map_err(drop).map(|one| one.map(Arc::new))));
        let question = question.shared();
        *asking = question.downgrade().map(|weak| (generation, weak));
        Some(question)
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

    /// A caller that starts the provider's call and is then no longer polled does not block the others, and
    /// the result is used once.
    #[tokio::test]
    async fn whoever_looks_no_more_holds_up_nobody() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let provider: Provider = Box::new(move || {
            let n = counted.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                tokio::task::yield_now().await;
                (n != 1).then(|| format!("token {n}").into())
            })
        });
        let credentials = Credentials::new(None, Some(provider));
        let mut parked = Box::pin(credentials.renew(0));
        assert!((&mut parked).now_or_never().is_none());
        assert!(credentials.renew(0).await.unwrap());
        let mut refused = Box::pin(credentials.renew(1));
        assert!((&mut refused).now_or_never().is_none());
        assert!(!credentials.renew(1).await.unwrap(), "the provider has none now");
        assert!(credentials.renew(1).await.unwrap(), "and it has one now");
        assert!(parked.await.unwrap() && !refused.await.unwrap());
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        let held = credentials.held();
        assert_eq!((held.generation, held.credential.unwrap().expose()), (2, "token 2"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_never_answers_is_a_timeout() {
        let provider: Provider = Box::new(|| Box::pin(std::future::pending()));
        let error = Credentials::new(None, Some(provider)).renew(0).await.unwrap_err();
        assert!(matches!(error, ClientError::Timeout("a new credential", PROVIDER_WAIT_MAX)), "{error}");
        assert!(!Credentials::new(None, None).renew(0).await.unwrap());
    }
}
