//! Hashes passwords with Argon2id (RFC 9106) and verifies them.
//!
//! * A verification costs the same whether or not there is a hash to compare with ([`NOBODYS`]).
//! * Hashing takes a core and 19 MiB for some hundredths of a second. It runs outside the workers, on all
//!   cores but one and at most [`HASHES_AT_ONCE`] at once. Other requests wait for their turn (`hash_queue`).
//! * A verified password gives a [`PasswordProof`]; without one no session starts.

use std::net::IpAddr;
use std::sync::Arc;

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use ring::rand::{SecureRandom, SystemRandom};

use super::hash_queue::{HashQueue, HashTurn, QueuePermit};
use super::password::{Password, PasswordError, PasswordHash};
use crate::ids::TenantId;

/// Hashes that run at once on a machine with more cores than that. Limits their memory to 57 MiB, because
/// anybody may try to log in.
pub const HASHES_AT_ONCE: usize = 3;

/// Memory in KiB, passes and lanes, as OWASP recommends for Argon2id.
const COST: (u32, u32, u32) = (19 * 1_024, 2, 1);
const SALT_BYTES: usize = 16;
/// The hash that is verified if the user does not exist: the same work, and no password matches.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Proof that a user's password was just verified. Only [`Passwords::verify`] creates one.
#[derive(Debug)]
pub struct PasswordProof {
    pub(in crate::auth) tenant: TenantId,
    pub(in crate::auth) sub: String,
}

impl PasswordProof {
    /// The user's organization.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }
}

/// Hashes passwords, a few at a time.
pub struct Passwords {
    queue: Arc<HashQueue>,
    random: SystemRandom,
}

impl Default for Passwords {
    fn default() -> Passwords {
        // One core is left for the workers.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Passwords { queue: HashQueue::new((cores - 1).min(HASHES_AT_ONCE)), random: SystemRandom::new() }
    }
}

impl Passwords {
    /// Hashes a password for storage.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn hash(
        &self,
        permit: &QueuePermit,
        password: Arc<Password>,
    ) -> Result<PasswordHash, PasswordError> {
        let mut salt = [0; SALT_BYTES];
        self.random.fill(&mut salt).map_err(|_| PasswordError::Failed)?;
        let hash = move || {
            let hash = argon2()?.hash_password_with_salt(password.0.as_bytes(), &salt).ok()?;
            Some(PasswordHash(hash.to_string()))
        };
        run(permit.acquire().await?, hash).await?.ok_or(PasswordError::Failed)
    }

    /// Verifies `password` against the tenant, user id and hash in `account`. If `account` is `None`, it does
    /// the same work and returns `None`.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn verify(
        &self,
        turn: HashTurn,
        password: Arc<Password>,
        account: Option<(TenantId, &str, &PasswordHash)>,
    ) -> Result<Option<PasswordProof>, PasswordError> {
        let hash = account.map_or_else(|| NOBODYS.to_owned(), |(_, _, hash)| hash.0.clone());
        let fits = run(turn, move || matches(&password, &hash)).await?;
        let proof = account.map(|(tenant, sub, _)| PasswordProof { tenant, sub: sub.to_owned() });
        Ok(proof.filter(|_| fits))
    }

    /// Checks whether one more login from this peer may wait. It is called before anything is read for the
    /// login.
    ///
    /// # Errors
    /// [`PasswordError::Share`].
    pub fn check_login(&self, peer: Option<IpAddr>) -> Result<(), PasswordError> {
        self.queue.check_login(peer)
    }

    /// Acquires a permit for a login from this peer (`None`: a unix socket).
    ///
    /// # Errors
    /// [`PasswordError::Share`].
    pub fn login(&self, peer: Option<IpAddr>) -> Result<QueuePermit, PasswordError> {
        self.queue.login(peer)
    }

    /// Acquires a permit to set a password in this organization: to register a user or to change a password.
    ///
    /// # Errors
    /// [`PasswordError::Busy`], [`PasswordError::Share`].
    pub fn setter(&self, tenant: TenantId) -> Result<QueuePermit, PasswordError> {
        self.queue.set_password(tenant)
    }

    /// Returns a digest that distinguishes passwords and is as hard to invert as the stored hash. It is used
    /// to recognize a repeated request.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn digest(
        &self,
        permit: &QueuePermit,
        password: Arc<Password>,
        salt: [u8; 32],
    ) -> Result<[u8; 32], PasswordError> {
        let digest = move || {
            let mut out = [0; 32];
            argon2()?.hash_password_into(password.0.as_bytes(), &salt, &mut out).ok()?;
            Some(out)
        };
        run(permit.acquire().await?, digest).await?.ok_or(PasswordError::Failed)
    }
}

/// Runs `work` outside the workers. The turn is held until the work is done, whether or not a caller still
/// waits for the result.
async fn run<T: Send + 'static>(
    turn: HashTurn,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PasswordError> {
    let work = move || {
        let _held = turn;
        work()
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| PasswordError::Failed)
}

fn argon2() -> Option<Argon2<'static>> {
    let (memory, passes, lanes) = COST;
    Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(memory, passes, lanes, None).ok()?))
}

/// Verifies a password with the parameters in the hash.
fn matches(password: &Password, hash: &str) -> bool {
    Argon2::default().verify_password(password.0.as_bytes(), hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Arc<Password> {
        Arc::new(serde_json::from_value(text.into()).expect("a password"))
    }

    #[tokio::test]
    async fn a_password_matches_only_its_own_hash() {
        let passwords = Passwords::default();
        let permit = passwords.login(None).expect("a permit");
        let hash = passwords.hash(&permit, password("correct horse")).await.expect("hashed");
        let again = passwords.hash(&permit, password("correct horse")).await.expect("hashed");
        assert_ne!(hash, again, "each has its own salt");
        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.0);
        let account = Some((TenantId(3), "user-1", &hash));
        let verify = async |text: &str, account| {
            let turn = permit.acquire().await.expect("a turn");
            passwords.verify(turn, password(text), account).await.expect("verified")
        };
        let proof = verify("correct horse", account).await;
        assert!(proof.is_some_and(|proof| (proof.tenant, proof.sub.as_str()) == (TenantId(3), "user-1")));
        assert!(verify("correct horsf", account).await.is_none());
        assert!(verify("correct horse", None).await.is_none());
    }

    /// The hash for an unknown user is parsed and computed like any other. Otherwise its refusal would come
    /// earlier.
    #[test]
    fn an_unknown_users_hash_costs_the_same_work() {
        let parsed = argon2::PasswordHash::new(NOBODYS).expect("a PHC string");
        let made = argon2().and_then(|it| it.hash_password_with_salt(b"x", &[0; SALT_BYTES]).ok());
        let made = made.expect("hashed");
        assert_eq!(
            (parsed.algorithm, parsed.version, &parsed.params),
            (made.algorithm, made.version, &made.params)
        );
        assert_eq!(parsed.hash.map(|it| it.as_bytes().len()), made.hash.map(|it| it.as_bytes().len()));
    }

    #[tokio::test]
    async fn digests_of_passwords_differ() {
        let passwords = Passwords::default();
        let permit = passwords.login(None).expect("a permit");
        let one = passwords.digest(&permit, password("password 1"), [1; 32]).await.expect("digested");
        assert_eq!(passwords.digest(&permit, password("password 1"), [1; 32]).await, Ok(one));
        assert_ne!(passwords.digest(&permit, password("password 2"), [1; 32]).await, Ok(one));
        assert_ne!(passwords.digest(&permit, password("password 1"), [2; 32]).await, Ok(one));
    }
}
