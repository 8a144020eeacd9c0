// Refreshes the page, opens links outside Airflow's frame, moves by arrow keys, copies, and asks before an action.
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
  var before = null;
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

  // What tells a link or a button from the others on the page, before and after a refresh.
  function keyOf(node) {
    return [node.id, node.getAttribute("href"), node.dataset.act, node.dataset.name, node.dataset.copy].join(" ");
  }

  function replace(text) {
    var now = new DOMParser().parseFromString(text, "text/html").getElementById("live");
    if (!now) throw new Error("no page");
    var focus = document.activeElement && live().contains(document.activeElement) ? document.activeElement : null;
    var key = focus && keyOf(focus);
    var log = live().querySelector("pre.log");
    var atEnd = !log || log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    var top = log ? log.scrollTop : 0;
    keepForms(live(), now, focus);
    live().replaceWith(now);
    showEnd(atEnd ? null : top);
    begin();
    if (!focus) return;
    if (live().contains(focus)) {
      focus.focus({ preventScroll: true });
      return;
    }
    now.querySelectorAll("a, button, pre, section, #list").forEach(function (each) {
      if (keyOf(each) === key) each.focus({ preventScroll: true });
    });
  }

  // A form that somebody is filling in stays as it is.
  function keepForms(before, now, focus) {
    before.querySelectorAll("form[data-keep]").forEach(function (form) {
      var changed = Array.prototype.some.call(form.elements, function (each) {
        return each.type === "search" && each.value !== each.defaultValue;
      });
      var name = form.getAttribute("aria-label");
      var other = now.querySelector('form[data-keep][aria-label="' + name + '"]');
      if (other && (changed || form.contains(focus))) other.replaceWith(form);
    });
  }

  // After each load and refresh: the title, and one tab stop for each row.
  function begin() {
    document.title = live().dataset.title || document.title;
    try {
      if (window.parent !== window) {
        if (before === null) before = window.parent.document.title;
        window.parent.document.title = document.title;
      }
    } catch (error) {
      // The frame belongs to another origin, which has its own title.
    }
    document.querySelectorAll("[data-rove]").forEach(function (group) {
      stop(group, itemsOf(group)[0]);
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

  window.addEventListener("pagehide", function () {
    try {
      if (before !== null && window.parent.document.title === document.title) window.parent.document.title = before;
    } catch (error) {
      // As above.
    }
  });

  // --- keys: each row, and the bars of each node, are one tab stop; arrow keys move within and between them ---

  function itemsOf(group) {
    return group ? Array.prototype.slice.call(group.querySelectorAll("a[href], button")) : [];
  }

  function stop(group, item) {
    itemsOf(group).forEach(function (each) {
      each.setAttribute("tabindex", each === item ? "0" : "-1");
    });
  }

  function groupBeside(group, step) {
    var all = Array.prototype.slice.call(document.querySelectorAll("[data-rove]")).filter(function (each) {
      return each.tagName === group.tagName && itemsOf(each).length > 0;
    });
    return all[all.indexOf(group) + step] || null;
  }

  document.addEventListener("keydown", function (event) {
    var group = event.target.closest ? event.target.closest("[data-rove]") : null;
    if (!group || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    var items = itemsOf(group);
    var place = items.indexOf(event.target);
    var next = null;
    if (event.key === "ArrowRight") next = items[place + 1];
    else if (event.key === "ArrowLeft") next = items[place - 1];
    else if (event.key === "Home") next = items[0];
    else if (event.key === "End") next = items[items.length - 1];
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      var other = groupBeside(group, event.key === "ArrowDown" ? 1 : -1);
      next = itemsOf(other)[0];
    } else return;
    event.preventDefault();
    if (next) next.focus();
  });

  document.addEventListener("focusin", function (event) {
    var group = event.target.closest ? event.target.closest("[data-rove]") : null;
    if (group) stop(group, event.target);
  });

  document.addEventListener("focusout", function (event) {
    var group = event.target.closest ? event.target.closest("tr[data-rove]") : null;
    // The next way through the table starts at the names again.
    if (group && !group.contains(event.relatedTarget)) stop(group, itemsOf(group)[0]);
  });

  // --- forms: a choice needs no button ---

  document.addEventListener("change", function (event) {
    if (event.target.matches && event.target.matches("select[data-send]")) event.target.form.requestSubmit();
  });

  // --- copying ---

  function copied(button, done) {
    button.textContent = done ? "Copied" : "Not copied";
    window.setTimeout(function () {
      button.textContent = "Copy";
    }, 1500);
  }

  // Where the page is served without https, browsers offer only this.
  function copyBySelection(text) {
    var area = document.createElement("textarea");
    area.value = text;
    area.className = "visually-hidden";
    document.body.appendChild(area);
    area.select();
    var done = document.execCommand("copy");
    area.remove();
    return done;
  }

  document.addEventListener("click", function (event) {
    var button = event.target.closest ? event.target.closest("button.copy") : null;
    if (!button) return;
    var from = button.dataset.copyFrom;
    var text = from ? byId(from).textContent : JSON.parse(button.dataset.copy);
    if (!navigator.clipboard) {
      copied(button, copyBySelection(text));
      button.focus();
      return;
    }
    navigator.clipboard.writeText(text).then(
      function () {
        copied(button, true);
      },
      function () {
        copied(button, copyBySelection(text));
        button.focus();
      }
    );
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
  var waiting = 0;

  function showInDialog(text) {
    byId("act-message").textContent = text;
    byId("act-message").hidden = !text;
  }

  // As the server shows names: with the controls of a text's direction as text.
  function shown(name) {
    return name.replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, function (found) {
      return "[U+" + ("0000" + found.charCodeAt(0).toString(16).toUpperCase()).slice(-4) + "]";
    });
  }

  function askForce(users) {
    byId("act-users").textContent = "The cluster is in use: " + users;
    byId("act-users").hidden = false;
    byId("act-force-row").hidden = false;
    byId("act-force").checked = false;
  }

  function nameOf(button) {
    return JSON.parse(button.dataset.name);
  }

  function ready() {
    var force = byId("act-force-row").hidden || byId("act-force").checked;
    var named = byId("act-confirm-row").hidden || byId("act-confirm").value === nameOf(acting);
    byId("act-yes").disabled = !(force && named);
  }

  function open(button) {
    acting = button;
    window.clearInterval(waiting);
    var deleting = button.dataset.act === "delete";
    var name = shown(nameOf(button));
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
    var body = deleting ? { confirm: byId("act-confirm").value, force: force } : { job: nameOf(acting) };
    byId("act-yes").disabled = true;
    var began = Date.now();
    showInDialog(deleting ? "Deleting…" : "Stopping…");
    window.clearInterval(waiting);
    waiting = window.setInterval(function () {
      var seconds = Math.round((Date.now() - began) / 1000);
      showInDialog((deleting ? "Deleting… no answer for " : "Stopping… no answer for ") + seconds + " s");
    }, 2000);
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
        window.clearInterval(waiting);
        if (found.status === 202) {
          // It goes on; what is known so far is said where the user is looking.
          showInDialog(String(found.message));
          byId("act-no").textContent = "Close";
          byId("act-no").focus();
          return;
        }
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
        window.clearInterval(waiting);
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
  begin();
  window.setInterval(age, 5000);
  age();
  plan(next());
})();
