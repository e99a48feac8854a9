//! The account at a CA: the stored one, or a new one made once.

use std::io;
use std::sync::Arc;

use instant_acme::{Account, ExternalAccountKey, Key, NewAccount};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::failure::Failure;
use super::store::{self, Store};
use super::wire::{Transport, Wire};
use crate::base::secret::Secret;
use crate::config::{AcmeSettings, DirectoryUrl};

/// Opens the account at this CA.
///
/// # Errors
/// [`Failure`]. Whatever happens, no account is made whose key is not kept first. Where an external account has to be
/// bound the key is kept right after: instant-acme makes that one itself.
pub(super) async fn open(
    settings: &AcmeSettings,
    directory: &DirectoryUrl,
    store: &Store,
    transport: &Arc<dyn Transport>,
) -> Result<Account, Failure> {
    let usable = |saved: &store::Account| Key::from_pkcs8_der(pkcs8(&saved.key)).is_ok();
    let saved = store.account().filter(usable);
    let saved = match saved {
        Some(saved) if saved.id.is_some() => saved,
        _ => {
            let _turn = store.lock_account().await.map_err(unkept)?;
            match store.account().filter(usable) {
                Some(saved) if saved.id.is_some() => saved,
                begun => make(begun, settings, directory, store, transport).await?,
            }
        }
    };
    let id = saved.id.clone().unwrap_or_default();
    let builder = Account::builder_with_http(Box::new(Wire(Arc::clone(transport))));
    let account = builder.from_parts(id, pkcs8(&saved.key), directory.as_str().to_owned()).await?;
    if saved.contact != settings.contact {
        tell_contacts(&account, saved, settings, store).await;
    }
    Ok(account)
}

/// An account for questions that need none (RFC 9773 section 4.1): the CA never hears of it.
///
/// # Errors
/// [`Failure`], when the directory cannot be read.
pub(super) async fn nobody(
    directory: &DirectoryUrl,
    transport: &Arc<dyn Transport>,
) -> Result<Account, Failure> {
    let (_, key) = Key::generate_pkcs8()?;
    let builder = Account::builder_with_http(Box::new(Wire(Arc::clone(transport))));
    Ok(builder.from_parts(String::new(), key, directory.as_str().to_owned()).await?)
}

/// Makes the account, or finds it again by its key: asked twice with one key a CA gives the same account (RFC 8555
/// section 7.3.1).
async fn make(
    begun: Option<store::Account>,
    settings: &AcmeSettings,
    directory: &DirectoryUrl,
    store: &Store,
    transport: &Arc<dyn Transport>,
) -> Result<store::Account, Failure> {
    let url = directory.as_str().to_owned();
    let builder = Account::builder_with_http(Box::new(Wire(Arc::clone(transport))));
    let external = settings.eab.as_ref().filter(|_| *directory == settings.directory);
    if let Some(eab) = external {
        let contact: Vec<&str> = settings.contact.iter().map(String::as_str).collect();
        let wanted =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let key = ExternalAccountKey::new(eab.key_id.clone(), eab.hmac_key.expose());
        let (account, credentials) = builder.create(&wanted, url, Some(&key)).await?;
        let key = Secret::new(credentials.private_key().secret_pkcs8_der().to_vec());
        let id = Some(account.id().to_owned());
        let made = store::Account { key, id, contact: settings.contact.clone() };
        store.keep_account(&made).map_err(unkept)?;
        return Ok(made);
    }
    let mut made = match begun {
        Some(begun) => begun,
        None => {
            let (_, key) = Key::generate_pkcs8()?;
            let key = Secret::new(key.secret_pkcs8_der().to_vec());
            store::Account { key, id: None, contact: Vec::new() }
        }
    };
    store.keep_account(&made).map_err(unkept)?;
    let key = Key::from_pkcs8_der(pkcs8(&made.key))?;
    let der = PrivateKeyDer::Pkcs8(pkcs8(&made.key).clone_key());
    let (account, _) = builder.create_from_key((key, der), url).await?;
    made.id = Some(account.id().to_owned());
    store.keep_account(&made).map_err(unkept)?;
    tracing::info!(directory = %directory, "made an account");
    Ok(made)
}

/// The certificate matters more than where its CA may write to: a refusal is only told.
async fn tell_contacts(account: &Account, mut saved: store::Account, settings: &AcmeSettings, store: &Store) {
    let contact: Vec<&str> = settings.contact.iter().map(String::as_str).collect();
    match account.update_contacts(&contact).await.map_err(Failure::from) {
        Ok(()) => {
            saved.contact.clone_from(&settings.contact);
            if let Err(error) = store.keep_account(&saved) {
                tracing::warn!(%error, "the account's contacts were not kept");
            }
        }
        Err(failure) => tracing::warn!(%failure, "the account's contacts were not taken"),
    }
}

fn pkcs8(key: &Secret<Vec<u8>>) -> PrivatePkcs8KeyDer<'_> {
    PrivatePkcs8KeyDer::from(key.expose().as_slice())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unkept(error: io::Error) -> Failure {
    Failure::Storage(error.to_string())
}
