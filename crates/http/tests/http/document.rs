//! What the OpenAPI document says is so.

use std::io::Write as _;
use std::process::{Command as Program, Stdio};

use serde_json::{Value, json};

use crate::support::{Builder, KEY, gateway};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

async fn document() -> (crate::support::Open, Value) {
    let open = Builder::full().await.open(gateway().title("Accounts").version("7")).await;
    let document = open.get("/api/openapi.json").await.json();
    (open, document)
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS.into_iter().filter(|method| item.get(method).is_some()) {
            all.push((path.clone(), method.to_uppercase(), item[method].clone()));
        }
    }
    all
}

#[tokio::test]
async fn documented_routes_are_those_that_are_served() {
    let (open, document) = document().await;
    let operations = operations(&document);
    for (path, method, _) in &operations {
        let path = path.replace("{userId}", "7");
        let reply = open.ask(&format!("{method} {path}"), &[KEY], "").await;
        assert!(![404, 405].contains(&reply.status), "{method} {path}: {}", reply.status);
    }
    let mut documented: Vec<String> =
        operations.iter().map(|(path, method, _)| format!("{method} {path}")).collect();
    let mut served: Vec<String> = open
        .house
        .catalogue
        .commands()
        .filter_map(|entry| {
            Some(format!("{} /api/v1/{}", entry.route?.method().as_str(), entry.route?.path()))
        })
        .collect();
    documented.sort();
    served.sort();
    assert_eq!(documented, served);
}

#[tokio::test]
async fn an_operation_tells_input_output_errors_and_who_may_use_it() {
    let (_, document) = document().await;
    assert_eq!(
        (&document["openapi"], &document["info"]),
        (&json!("3.1.0"), &json!({"title": "Accounts", "version": "7"}))
    );
    assert_eq!(document["tags"], json!([{"name": "User", "description": "Users and their notes"}]));
    let sign_up = &document["paths"]["/api/v1/sign-up"]["post"];
    assert_eq!((&sign_up["operationId"], &sign_up["security"]), (&json!("userSignUp"), &json!([])));
    let body = &sign_up["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(body, "#/components/schemas/SignUp");
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["SignUp"]["properties"]["email"]["format"], "email");
    assert_eq!(schemas["SignUp"]["properties"]["name"]["maxLength"], 80);
    let output = &sign_up["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(output, "#/components/schemas/Registered");
    let statuses: Vec<&String> = sign_up["responses"].as_object().unwrap().keys().collect();
    assert_eq!(
        statuses,
        ["200", "400", "408", "409", "413", "414", "415", "422", "431", "500", "502", "503", "504", "508"]
    );
    assert_eq!(sign_up["responses"]["409"]["description"], "The e-mail is taken.");
    let rename = &document["paths"]["/api/v1/users/{userId}"]["patch"];
    assert_eq!(rename["security"], json!([{"apiKey": []}]));
    assert!(rename["responses"].get("401").is_some());
    assert_eq!(document["components"]["securitySchemes"]["apiKey"]["name"], "x-api-key");
}

#[tokio::test]
async fn parameters_are_described_once_and_not_in_the_body() {
    let (_, document) = document().await;
    let find = &document["paths"]["/api/v1/users/{userId}"]["get"];
    let of = |name: &str| {
        let all = find["parameters"].as_array().unwrap();
        all.iter().find(|parameter| parameter["name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    assert_eq!((of("userId")["in"].clone(), of("userId")["required"].clone()), (json!("path"), json!(true)));
    assert_eq!((of("page")["in"].clone(), of("page")["required"].clone()), (json!("query"), json!(false)));
    assert_eq!(of("tags")["schema"]["type"], "array");
    assert!(find.get("requestBody").is_none());
    let rename = &document["paths"]["/api/v1/users/{userId}"]["patch"];
    let body = rename["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
    let schema = document.pointer(body.strip_prefix('#').unwrap()).unwrap();
    assert_eq!(schema["required"], json!(["name"]));
    assert!(schema["properties"].get("userId").is_none());
    let note = &document["paths"]["/api/v1/users/{userId}/note"]["put"]["requestBody"]["content"];
    assert_eq!(note["text/plain"]["schema"]["type"], "string");
    let form = &document["paths"]["/api/v1/subscriptions"]["post"]["requestBody"]["content"];
    assert!(form.get("application/x-www-form-urlencoded").is_some());
}

#[tokio::test]
async fn a_map_that_is_flattened_into_an_input_is_its_body() {
    let (open, document) = document().await;
    let path = "/api/v1/users/{userId}/settings";
    let body = &document["paths"][path]["put"]["requestBody"];
    assert_eq!(body["required"], false);
    let schema = body["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
    let schema = document.pointer(schema.strip_prefix('#').unwrap()).unwrap();
    assert_eq!(schema["additionalProperties"], json!({"type": "string"}));
    let line = "PUT /api/v1/users/7/settings";
    let reply = open.ask(line, &["content-type: application/json"], r#"{"color":"red"}"#).await;
    let input: Value = serde_json::from_str(reply.json()["seen"]["input"].as_str().unwrap()).unwrap();
    assert_eq!(input, json!({"userId": "7", "color": "red"}));
}

#[tokio::test]
async fn every_reference_leads_somewhere() {
    let (_, document) = document().await;
    let mut open = vec![&document];
    let mut count = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                if let Some(target) = members.get("$ref").and_then(Value::as_str) {
                    count += 1;
                    assert!(document.pointer(target.strip_prefix('#').unwrap()).is_some(), "{target}");
                }
                open.extend(members.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    assert!(count > 50, "{count}");
}

#[tokio::test]
#[ignore = "needs python3 with openapi-spec-validator: cargo xtask test"]
async fn the_document_is_valid_openapi() {
    let (_, document) = document().await;
    let python =
        std::env::var("PURISTA_PYTHON").expect("PURISTA_PYTHON names a python with openapi-spec-validator");
    let script = "import json, sys; from openapi_spec_validator import validate; validate(json.load(sys.stdin)); print('valid')";
    let mut validator = Program::new(python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    validator.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
    let told = validator.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&told.stdout).trim(),
        "valid",
        "{}",
        String::from_utf8_lossy(&told.stderr)
    );
}
