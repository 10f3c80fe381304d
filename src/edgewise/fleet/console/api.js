// Asks the API. The token lives in this tab's sessionStorage and is sent as a header, nowhere else.
const KEY = "edgewise-token";

export const token = () => sessionStorage.getItem(KEY);
export const keep = (text) => sessionStorage.setItem(KEY, text);
export const forget = () => sessionStorage.removeItem(KEY);

export class Refused extends Error {
  constructor(status, problem) {
    super([problem.found, problem.required && `required: ${problem.required}`, problem.next_step].filter(Boolean).join("; "));
    this.status = status;
  }
}

export async function ask(path, body) {
  const headers = { authorization: `Bearer ${token()}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(`/api/v1/${path}`, {
    method: body === undefined ? "GET" : "POST", headers, body: body && JSON.stringify(body), cache: "no-store",
  });
  const found = await answer.json().catch(() => ({ found: `the server answered ${answer.status}` }));
  if (!answer.ok) throw new Refused(answer.status, found);
  return found;
}

export const part = encodeURIComponent;
