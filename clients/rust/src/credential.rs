//! The credential of a client, and how it is replaced when the daemon no longer accepts it.
//!
//! * It is sent to the daemon in `Authorization` and nowhere else. `Debug` does not show it, and it is wiped
//!   from memory.
//! * When many requests find at once that it has expired, the provider is called once. All of them wait on
//!   the same call, and each one that is polled drives it, so a caller that stops polling does not block the others.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Shared, WeakShared};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::error::ClientError;
use crate::sync::lock;

/// Maximum time for a provider. After it, all callers that wait for the new credential get an error.
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

type ProviderFuture = Pin<Box<dyn Future<Output = Option<Credential>> + Send>>;
/// Returns a new credential, or `None`.
pub(crate) type Provider = Box<dyn Fn() -> ProviderFuture + Send + Sync>;

/// The provider's result, or an error if it timed out.
type ProviderResult = Result<Option<Arc<Credential>>, ()>;
/// One call of the provider, shared by all who wait for its result.
type RenewalFuture = Pin<Box<dyn Future<Output = ProviderResult> + Send>>;

/// The current credential of a client and all its clones.
pub(crate) struct Credentials {
    current: Mutex<CurrentCredential>,
    provider: Option<Provider>,
    /// The running call of the provider, while a caller waits for its result, and the generation that it
    /// replaces.
    renewal: Mutex<Option<(u64, WeakShared<RenewalFuture>)>>,
}

#[derive(Clone, Default)]
pub(crate) struct CurrentCredential {
    pub(crate) credential: Option<Arc<Credential>>,
    /// Grows with every renewal, so a refused request can see whether it used the current credential.
    pub(crate) generation: u64,
}

impl Credentials {
    pub(crate) fn new(credential: Option<Credential>, provider: Option<Provider>) -> Self {
        let current = CurrentCredential { credential: credential.map(Arc::new), generation: 0 };
        Self { current: Mutex::new(current), provider, renewal: Mutex::default() }
    }

    /// The current credential.
    pub(crate) fn current(&self) -> CurrentCredential {
        lock(&self.current).clone()
    }

    /// Replaces the credential of `generation` with a new one. Returns whether a newer one is in use now.
    pub(crate) async fn renew(&self, generation: u64) -> Result<bool, ClientError> {
        let Some(provider) = &self.provider else { return Ok(false) };
        let Some(renewal) = self.join_renewal(provider, generation) else { return Ok(true) };
        // A clone, so that the call lives until its result is in use: see `join_renewal`.
        let result = renewal.clone().await;
        let result = result.map_err(|()| ClientError::Timeout("a new credential", PROVIDER_WAIT_MAX))?;
        let Some(credential) = result else { return Ok(false) };
        let mut current = lock(&self.current);
        if current.generation == generation {
            *current = CurrentCredential { credential: Some(credential), generation: generation + 1 };
        }
        Ok(true)
    }

    /// Joins the running call for this generation, or starts one. `None`: the credential was already
    /// replaced.
    fn join_renewal(&self, provider: &Provider, generation: u64) -> Option<Shared<RenewalFuture>> {
        let mut slot = lock(&self.renewal);
        let running = slot.as_ref().filter(|(replaced, _)| *replaced == generation);
        let running = running.and_then(|(_, running)| running.upgrade());
        // A call that returned no credential is repeated.
        let running = running.filter(|running| !matches!(running.peek(), Some(Ok(None) | Err(()))));
        if running.is_some() {
            return running;
        }
        // No caller waits, so a credential from an earlier one is already in use.
        if lock(&self.current).generation != generation {
            return None;
        }
        let result = timeout(PROVIDER_WAIT_MAX, provider());
        let renewal: RenewalFuture =
            Box::pin(result.map(|result| result.map_err(drop).map(|credential| credential.map(Arc::new))));
        let renewal = renewal.shared();
        *slot = renewal.downgrade().map(|weak| (generation, weak));
        Some(renewal)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn debug_output_does_not_show_the_secret() {
        let credential = Credential::from("nwk_a_hidden");
        assert_eq!(format!("{credential:?}"), "Credential(…)");
        assert_eq!(credential.expose(), "nwk_a_hidden");
    }

    #[tokio::test]
    async fn concurrent_refusals_renew_once() {
        let running = Arc::new(AtomicUsize::new(0));
        let counted = running.clone();
        let provider: Provider = Box::new(move || {
            let n = counted.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                tokio::task::yield_now().await;
                (n < 2).then(|| format!("token {n}").into())
            })
        });
        let credentials = Credentials::new(Some("old".into()), Some(provider));
        let (a, b, c) = tokio::join!(credentials.renew(0), credentials.renew(0), credentials.renew(0));
        assert_eq!(
            (a.unwrap(), b.unwrap(), c.unwrap(), running.load(Ordering::SeqCst)),
            (true, true, true, 1)
        );
        assert_eq!(credentials.current().credential.unwrap().expose(), "token 0");
        assert!(credentials.renew(1).await.unwrap());
        assert!(!credentials.renew(2).await.unwrap(), "the provider has no more");
        assert_eq!(credentials.current().generation, 2);
    }

    /// A caller that starts the provider's call and is then no longer polled does not block the others, and
    /// the result is used once.
    #[tokio::test]
    async fn a_dropped_waiter_does_not_block_the_renewal() {
        let running = Arc::new(AtomicUsize::new(0));
        let counted = running.clone();
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
        assert_eq!(running.load(Ordering::SeqCst), 3);
        let current = credentials.current();
        assert_eq!((current.generation, current.credential.unwrap().expose()), (2, "token 2"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_does_not_return_is_a_timeout() {
        let provider: Provider = Box::new(|| Box::pin(std::future::pending()));
        let error = Credentials::new(None, Some(provider)).renew(0).await.unwrap_err();
        assert!(matches!(error, ClientError::Timeout("a new credential", PROVIDER_WAIT_MAX)), "{error}");
        assert!(!Credentials::new(None, None).renew(0).await.unwrap());
    }
}
