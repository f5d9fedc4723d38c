// A certified OpenID provider with its own login and consent pages, in which everybody is who they say they are.
// Environment: PORT, CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, and NODE_PATH, where its modules are.

import { pathToFileURL } from "node:url";

const { env } = process;
const { default: Provider } = await import(pathToFileURL(`${env.NODE_PATH}/oidc-provider/lib/index.js`).href);

const provider = new Provider(`http://127.0.0.1:${env.PORT}`, {
  clients: [
    {
      client_id: env.CLIENT_ID,
      client_secret: env.CLIENT_SECRET,
      redirect_uris: [env.REDIRECT_URI],
      grant_types: ["authorization_code"],
      response_types: ["code"],
    },
  ],
  cookies: { keys: ["only of this test"] },
  pkce: { methods: ["S256"], required: () => true },
});
provider.listen(Number(env.PORT), "127.0.0.1", () => console.log("listening"));
