// Shows the OpenAPI document. No validator is asked: what this registry can do is nobody else's business.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
});
