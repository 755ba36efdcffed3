// Shows the OpenAPI document with Swagger UI. The online validator is off, so the document stays on this machine.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
});
