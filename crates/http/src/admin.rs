//! The admin port's service: what is loaded, in full, and orders to load, unload and alias.
//!
//! JSON in and out, statuses by the plain table. Who may reach the port is the listener's affair; but a browser on the
//! same machine reaches it for any web page, so what a page sends is refused here.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request};
use http_body::Body;
use millrace_core::{Alias, Catalog, Control, ModelName, Quoted, Reason, Refusal};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use tower_service::Service;

use crate::body::{self, Bounds};
use crate::clock::now;
use crate::config::HttpConfig;
use crate::error::Failure;
use crate::head::{Head, REQUEST_ID};
use crate::health;
use crate::log::FailureLog;
use crate::readiness::{MetricsText, Readiness};
use crate::response::{self, Answer, ResponseBody};
use crate::route::{Route, route, segment, strip};
use crate::service::ServiceFuture;

mod view;

/// What the admin port's service is made of.
#[derive(Debug, Clone)]
pub struct AdminParts {
    /// Takes the orders.
    pub control: Arc<dyn Control>,
    /// Says what is loaded.
    pub catalog: Arc<dyn Catalog>,
    /// What the health routes report.
    pub readiness: Readiness,
    /// Renders the metrics page.
    pub metrics_text: MetricsText,
    /// Limits and switches; those for bodies apply here too.
    pub config: HttpConfig,
}

/// Makes the admin port's service.
pub fn admin_service(parts: AdminParts) -> AdminService {
    AdminService(Arc::new((parts, FailureLog::new())))
}

/// The admin port's service. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct AdminService(Arc<(AdminParts, FailureLog)>);

/// Bytes. Orders are a few words.
const MAX_BODY: u64 = 64 * 1024;

/// What an order may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    version: Option<u64>,
}

/// An admin route.
enum Verb<'a> {
    Models,
    Model(&'a str),
    Load(&'a str),
    Unload(&'a str),
    Alias { model: &'a str, alias: &'a str },
    Rescan,
}

impl AdminService {
    /// Answers one request. Dropping the future does not take an order back.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let head = Head::read(&parts.headers);
        let mut answer = match strip(parts.uri.path(), "/admin/").map(verb) {
            Some(Some(verb)) => match self.order(&verb, &parts, &head, body).await {
                Ok(answer) => answer,
                Err(failure) => self.0.1.refuse(&failure, parts.version, head.request_id),
            },
            Some(None) => not_found(),
            None => self.common(&parts),
        };
        if let Some(id) = head.request_id {
            answer.headers_mut().insert(REQUEST_ID, id.clone());
        }
        answer
    }

    /// The routes that the data port has too.
    fn common(&self, parts: &request::Parts) -> Answer {
        let (admin, readable) = (&self.0.0, matches!(parts.method, Method::GET | Method::HEAD));
        match route(parts.uri.path()) {
            Route::Metrics | Route::Health | Route::Live | Route::Ready if !readable => {
                response::method_not_allowed("GET, HEAD")
            }
            Route::Metrics => response::prometheus(admin.metrics_text.render()),
            Route::Health => health::health(&admin.readiness),
            Route::Live => health::live(&admin.readiness),
            Route::Ready => health::ready(&admin.readiness, &*admin.catalog),
            Route::Infer(..)
            | Route::Status(_)
            | Route::Metadata(_)
            | Route::List
            | Route::Malformed
            | Route::Unknown => not_found(),
        }
    }

    async fn order<B>(
        &self,
        verb: &Verb<'_>,
        parts: &request::Parts,
        head: &Head<'_>,
        body: B,
    ) -> Result<Answer, Failure>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let admin = &self.0.0;
        let config = &admin.config;
        // Browsers name the page in every request that changes something, and no other client does.
        if head.origin.is_some() && parts.method != Method::GET {
            let text = "orders from web pages are refused; send them without an origin header";
            return Err(Failure::plain(Refusal::new(Reason::Forbidden, text)).closing());
        }
        body::check_length(head.content_length, &body, MAX_BODY)?;
        let bounds = Bounds {
            bytes: MAX_BODY,
            time: config.body_timeout,
            rate: config.min_body_rate,
            started: now(),
            until: None,
            // Few and small: they need no room of a common budget, and must get through when there is none left.
            budget: None,
        };
        let body = body::read(body, bounds).await?;
        let method = &parts.method;
        match verb {
            Verb::Models if method == Method::GET => Ok(view::models(&*admin.catalog)),
            Verb::Models => Ok(response::method_not_allowed("GET")),
            Verb::Model(model) if method == Method::GET => {
                let name = known_name(model)?;
                let status = admin.catalog.model(name.as_str()).ok_or_else(|| unknown(&name))?;
                Ok(view::model(&status))
            }
            Verb::Model(_) => Ok(response::method_not_allowed("GET")),
            Verb::Load(model) if method == Method::POST => {
                let (name, version) = (known_name(model)?, version(parts, &body)?);
                admin.control.load(&name, version).await.map_err(Failure::plain)?;
                self.after(&name)
            }
            Verb::Unload(model) if method == Method::POST => {
                let (name, version) = (known_name(model)?, version(parts, &body)?);
                admin.control.unload(&name, version).await.map_err(Failure::plain)?;
                self.after(&name)
            }
            Verb::Load(_) | Verb::Unload(_) => Ok(response::method_not_allowed("POST")),
            Verb::Alias { model, alias } if method == Method::PUT => {
                let (name, alias) = (known_name(model)?, known_alias(alias)?);
                let version = version(parts, &body)?.ok_or_else(|| invalid("expected {\"version\": n}".to_owned()))?;
                admin.control.set_alias(&name, &alias, version).await.map_err(Failure::plain)?;
                self.after(&name)
            }
            Verb::Alias { model, alias } if method == Method::DELETE => {
                let (name, alias) = (known_name(model)?, known_alias(alias)?);
                admin.control.remove_alias(&name, &alias).await.map_err(Failure::plain)?;
                self.after(&name)
            }
            Verb::Alias { .. } => Ok(response::method_not_allowed("PUT, DELETE")),
            Verb::Rescan if method == Method::POST => {
                admin.control.rescan().await.map_err(Failure::plain)?;
                Ok(view::models(&*admin.catalog))
            }
            Verb::Rescan => Ok(response::method_not_allowed("POST")),
        }
    }

    /// An order that was carried out is answered with the model as it is now.
    fn after(&self, name: &ModelName) -> Result<Answer, Failure> {
        let status = self.0.0.catalog.model(name.as_str()).ok_or_else(|| unknown(name))?;
        Ok(view::model(&status))
    }
}

/// The order that the path after `/admin/` means.
fn verb(path: &str) -> Option<Verb<'_>> {
    let mut parts = path.split('/');
    let (first, rest) = (parts.next()?, [parts.next(), parts.next(), parts.next(), parts.next()]);
    if parts.next().is_some() {
        return None;
    }
    match (first, rest) {
        ("models", [None, ..]) => Some(Verb::Models),
        ("rescan", [None, ..]) => Some(Verb::Rescan),
        ("models", [Some(model), None, ..]) => Some(Verb::Model(model)),
        ("models", [Some(model), Some("load"), None, _]) => Some(Verb::Load(model)),
        ("models", [Some(model), Some("unload"), None, _]) => Some(Verb::Unload(model)),
        ("models", [Some(model), Some("aliases"), Some(alias), None]) => Some(Verb::Alias { model, alias }),
        _ => None,
    }
}

fn known_name(text: &str) -> Result<ModelName, Failure> {
    segment(text).unwrap_or_default().parse().map_err(|error| invalid(format!("{error}")))
}

fn known_alias(text: &str) -> Result<Alias, Failure> {
    segment(text).unwrap_or_default().parse().map_err(|error| invalid(format!("{error}")))
}

/// The version of an order: from its body, else from its query, else none.
fn version(parts: &request::Parts, body: &[u8]) -> Result<Option<u64>, Failure> {
    if !body.trim_ascii().is_empty() {
        let order: Order = serde_json::from_slice(body)
            .map_err(|error| invalid(format!("the body is not an order like {{\"version\": 1}}: {error}")))?;
        return Ok(order.version);
    }
    let mut version = None;
    for pair in parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key != "version" {
            let key = percent_decode_str(key).decode_utf8_lossy();
            return Err(invalid(format!("unknown parameter {}; expected version", Quoted(&key))));
        }
        let number =
            value.parse().map_err(|_| invalid(format!("version: expected a whole number, got {}", Quoted(value))))?;
        if version.replace(number).is_some() {
            return Err(invalid("version was given twice".to_owned()));
        }
    }
    Ok(version)
}

fn invalid(text: String) -> Failure {
    Failure::plain(Refusal::new(Reason::InvalidInput, text))
}

fn unknown(name: &ModelName) -> Failure {
    Failure::plain(Refusal::new(Reason::ModelUnknown, format!("no model is called `{name}`")))
}

fn not_found() -> Answer {
    response::json(StatusCode::NOT_FOUND, crate::error::error_body("not found"))
}

/// For tower's stacks.
impl<B> Service<Request<B>> for AdminService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ServiceFuture;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ServiceFuture {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await) })
    }
}

impl fmt::Debug for AdminService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminService").field("parts", &self.0.0).finish_non_exhaustive()
    }
}
