// Refreshes the page, opens links outside Airflow's frame, and asks for confirmation before an action.
(function () {
  "use strict";
  var SOON = 1000;
  var REGULAR = 15000;
  var LONGEST = 120000;
  var failures = 0;
  var soon = SOON;
  var timer = 0;
  var busy = false;
  var read = Date.now();
  var keep = 0;
  var byId = function (id) {
    return document.getElementById(id);
  };

  // --- refreshing ---

  function live() {
    return byId("live");
  }

  function notice(text) {
    byId("notice").textContent = text;
    byId("notice").hidden = !text;
  }

  function plan(delay) {
    window.clearTimeout(timer);
    timer = window.setTimeout(refresh, delay);
  }

  function next() {
    if (failures) return Math.min(LONGEST, REGULAR * Math.pow(2, failures - 1));
    if (live().dataset.reading !== "1") {
      soon = SOON;
      return REGULAR;
    }
    // Data that does not arrive at once may take long.
    soon = Math.min(REGULAR, soon * 2);
    return soon / 2;
  }

  function replace(text) {
    var now = new DOMParser().parseFromString(text, "text/html").getElementById("live");
    if (!now) throw new Error("no page");
    var focus = document.activeElement && live().contains(document.activeElement) ? document.activeElement : null;
    var key = focus && (focus.getAttribute("href") || focus.dataset.url + focus.dataset.name);
    var log = live().querySelector("pre.log");
    var atEnd = !log || log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    var top = log ? log.scrollTop : 0;
    live().replaceWith(now);
    showEnd(atEnd ? null : top);
    if (!key) return;
    now.querySelectorAll("a, button").forEach(function (each) {
      if ((each.getAttribute("href") || each.dataset.url + each.dataset.name) === key) each.focus({ preventScroll: true });
    });
  }

  function showEnd(top) {
    var log = live().querySelector("pre.log");
    if (log) log.scrollTop = top === null ? log.scrollHeight : top;
  }

  function refresh() {
    if (busy || document.hidden || byId("act").open) {
      plan(REGULAR);
      return;
    }
    busy = true;
    var address = new URL(window.location.href);
    address.searchParams.set("part", "1");
    address.hash = "";
    fetch(address, { headers: { Accept: "text/html" }, cache: "no-store" })
      .then(function (answer) {
        if (answer.status === 401) throw new Error("Your session has ended. Reload Airflow to log in again.");
        if (answer.status === 403) throw new Error("You no longer have access to this page.");
        if (!answer.ok && answer.status !== 404) throw new Error("Airflow's API server answered with status " + answer.status + ".");
        return answer.text();
      })
      .then(function (text) {
        // The user may have opened the dialog, or selected text to copy it, meanwhile.
        if (byId("act").open || String(window.getSelection())) return;
        replace(text);
        failures = 0;
        read = Date.now();
        if (Date.now() > keep) notice("");
      })
      .catch(function (error) {
        failures += 1;
        notice(error instanceof TypeError ? "Airflow's API server cannot be reached." : error.message);
      })
      .then(function () {
        busy = false;
        age();
        plan(next());
      });
  }

  function age() {
    var seconds = Math.round((Date.now() - read) / 1000);
    byId("fresh").textContent = seconds < 2 ? "Updated just now" : "Updated " + seconds + " s ago";
  }

  document.addEventListener("visibilitychange", function () {
    if (!document.hidden) plan(Date.now() - read > REGULAR ? 0 : next());
  });

  // --- links: inside its frame, the page may open neither windows nor pages of Airflow; Airflow's own page may ---

  document.addEventListener("click", function (event) {
    var link = event.target.closest ? event.target.closest("a[target]") : null;
    if (!link || window.parent === window) return;
    try {
      var outside = window.parent.document.createElement("a");
      outside.href = link.href;
      outside.target = link.target === "_top" && !event.ctrlKey && !event.metaKey ? "_self" : "_blank";
      outside.rel = "noopener noreferrer";
      window.parent.document.body.appendChild(outside);
      outside.click();
      outside.remove();
      event.preventDefault();
    } catch (error) {
      // The frame belongs to another origin: the link does what the browser permits.
    }
  });

  // --- actions ---

  var acting = null;

  function showInDialog(text) {
    byId("act-message").textContent = text;
    byId("act-message").hidden = !text;
  }

  function askForce(users) {
    byId("act-users").textContent = "The cluster is in use: " + users;
    byId("act-users").hidden = false;
    byId("act-force-row").hidden = false;
    byId("act-force").checked = false;
  }

  function ready() {
    var force = byId("act-force-row").hidden || byId("act-force").checked;
    var named = byId("act-confirm-row").hidden || byId("act-confirm").value === acting.dataset.name;
    byId("act-yes").disabled = !(force && named);
  }

  function open(button) {
    acting = button;
    var deleting = button.dataset.act === "delete";
    var name = button.dataset.name;
    byId("act-title").textContent = deleting ? "Delete cluster " + name + "?" : "Stop job " + name + "?";
    byId("act-text").textContent = deleting
      ? "This cannot be undone, and the name cannot be reused for up to two hours."
      : "Its driver receives SIGTERM, and SIGKILL a few seconds later. Its task fails.";
    byId("act-users").hidden = byId("act-force-row").hidden = true;
    if (deleting && button.dataset.users) askForce(button.dataset.users);
    byId("act-confirm-row").hidden = !deleting;
    byId("act-confirm").value = "";
    byId("act-name").textContent = name;
    byId("act-yes").textContent = deleting ? "Delete cluster" : "Stop job";
    byId("act-no").textContent = "Cancel";
    showInDialog("");
    ready();
    byId("act").showModal();
    (deleting ? byId("act-confirm") : byId("act-no")).focus();
  }

  function send() {
    var deleting = acting.dataset.act === "delete";
    var force = !byId("act-force-row").hidden && byId("act-force").checked;
    var body = deleting ? { confirm: byId("act-confirm").value, force: force } : { job: acting.dataset.name };
    byId("act-yes").disabled = true;
    showInDialog(deleting ? "Deleting…" : "Stopping…");
    fetch(acting.dataset.url, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Vertex-Ray-Page": "1" },
      body: JSON.stringify(body),
    })
      .then(function (answer) {
        return answer.json().then(function (body) {
          return { status: answer.status, message: body.message || body.detail || "The API server answered with status " + answer.status + "." };
        });
      })
      .then(function (found) {
        if (found.status < 300) {
          byId("act").close();
          notice(found.message);
          keep = Date.now() + 8000;
          plan(0);
          return;
        }
        showInDialog(String(found.message));
        if (deleting && found.status === 409 && byId("act-force-row").hidden) askForce(String(found.message));
        ready();
      })
      .catch(function () {
        showInDialog("Airflow's API server cannot be reached. The action may have been carried out; check before you try again.");
        ready();
      });
  }

  document.addEventListener("click", function (event) {
    var button = event.target.closest ? event.target.closest("button[data-act]") : null;
    if (button) open(button);
  });
  byId("act-yes").addEventListener("click", send);
  byId("act-no").addEventListener("click", function () {
    byId("act").close();
  });
  byId("act-force").addEventListener("change", ready);
  byId("act-confirm").addEventListener("input", ready);
  byId("act").querySelector("form").addEventListener("submit", function (event) {
    // Enter does what the button does, once that is enabled.
    event.preventDefault();
    if (!byId("act-yes").disabled) send();
  });

  showEnd(null);
  window.setInterval(age, 5000);
  age();
  plan(next());
})();
