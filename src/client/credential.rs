//! The credential a client shows, and where it gets another one when the daemon no longer takes it.
//!
//! * It is shown to the daemon in `Authorization` and to nobody else: it has no readable `Debug` and is wiped from memory.
//! * However many requests meet its end at once, the provider is asked once. Whoever waits moves that one question on, so
//!   nobody is held up by a reader that asked and looks no more.

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

/// The provider's answer, or nothing in time.
type Answer = Result<Option<Arc<Credential>>, ()>;
/// One question to the provider, for all who wait for its answer.
type Question = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The credential in force, of one client and all its clones.
pub(super) struct Credentials {
    held: Mutex<Held>,
    provider: Option<Provider>,
    /// The question that is asked, as long as somebody waits for its answer, and the generation that is to be replaced.
    asking: Mutex<Option<(u64, WeakShared<Question>)>>,
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
        Self { held: Mutex::new(held), provider, asking: Mutex::default() }
    }

    /// The one in force.
    pub(super) fn held(&self) -> Held {
        self.held.lock().clone()
    }

    /// Has another one put in force than that of `generation`; answers whether there is one now.
    pub(super) async fn renew(&self, generation: u64) -> Result<bool, ClientError> {
        let Some(provider) = &self.provider else { return Ok(false) };
        let Some(question) = self.ask(provider, generation) else { return Ok(true) };
        // A clone, so that the question outlives its answer until that is in force: see `ask`.
        let answer = question.clone().await;
        let answer = answer.map_err(|()| ClientError::Timeout("a new credential", PROVIDER_WAIT_MAX))?;
        let Some(credential) = answer else { return Ok(false) };
        let mut held = self.held.lock();
        if held.generation == generation {
            *held = Held { credential: Some(credential), generation: generation + 1 };
        }
        Ok(true)
    }

    /// Joins the question that is asked about this generation, or asks it; `None`: somebody else was first.
    fn ask(&self, provider: &Provider, generation: u64) -> Option<Shared<Question>> {
        let mut asking = self.asking.lock();
        let asked = asking.as_ref().filter(|(about, _)| *about == generation);
        let asked = asked.and_then(|(_, asked)| asked.upgrade());
        // One whose answer did not help is asked again.
        let asked = asked.filter(|asked| !matches!(asked.peek(), Some(Ok(None) | Err(()))));
        if asked.is_some() {
            return asked;
        }
        // Nobody waits: an answer that helped is in force by now.
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

    /// One that asks and is then no longer looked at neither holds up the others nor has its answer used twice.
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
        assert!(credentials.renew(1).await.unwrap(), "and one then");
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
