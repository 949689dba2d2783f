// The clock of the page: the video's, or our own where it cannot play.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

function clockText(seconds, digits = 1) {
  const unit = 10 ** digits;
  const units = Math.round(Math.max(seconds, 0) * unit);
  const whole = Math.floor(units / unit);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  let text = String(whole % 60).padStart(2, "0");
  if (digits) text += "." + String(units % unit).padStart(digits, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${text}`
    : `${minutes}:${text}`;
}

const player = {
  video: $("video"),
  works: Boolean($("video")),
  // What the page was asked for while the video had no time yet.
  wanted: null,
  still: 0,
  listeners: [],

  get duration() {
    return data.duration;
  },

  get time() {
    if (this.wanted !== null) return this.wanted;
    return this.works ? this.video.currentTime : this.still;
  },

  get playing() {
    return this.works && !this.video.paused && !this.video.ended;
  },

  seek(seconds) {
    const time = Math.min(Math.max(seconds, 0), this.duration);
    if (!this.works) {
      this.still = time;
    } else if (this.video.readyState === 0) {
      this.wanted = time;
    } else {
      this.video.currentTime = time;
    }
    this.changed();
  },

  toggle() {
    if (!this.works) return;
    if (this.video.paused) this.video.play().catch(() => {});
    else this.video.pause();
  },

  changed() {
    for (const listener of this.listeners) listener();
  },

  fail(reason) {
    if (!this.works) return;
    this.still = this.time;
    this.wanted = null;
    this.works = false;
    const name = this.video.dataset.name;
    $("failure").textContent = `This browser cannot play ${name} ` +
      `(${reason}). Keep the video where the page was made beside it; if it ` +
      "is there, its codec is not known here: try another browser, or make " +
      `a copy with: ffmpeg -i "${name}" -c:v libx264 -pix_fmt yuv420p ` +
      "copy.mp4. The timeline below works without it.";
    $("failure").hidden = false;
    this.video.hidden = true;
    this.changed();
  },
};

function watchVideo(video) {
  const reasons = ["", "loading was stopped", "it could not be read",
    "it could not be decoded", "missing, or of a kind it does not know"];
  video.addEventListener("error", () => {
    player.fail(reasons[video.error ? video.error.code : 4]);
  });
  video.addEventListener("loadedmetadata", () => {
    // A sound track alone is no picture: the codec is not known.
    if (!video.videoWidth) {
      player.fail("it has sound for this browser, but no pictures");
      return;
    }
    if (player.wanted !== null) {
      video.currentTime = player.wanted;
      player.wanted = null;
    }
    player.changed();
  });
  for (const name of ["timeupdate", "seeking", "seeked", "play", "pause"]) {
    video.addEventListener(name, () => player.changed());
  }
  const frame = () => {
    if (!player.playing) return;
    player.changed();
    requestAnimationFrame(frame);
  };
  video.addEventListener("play", frame);
  if (video.error) player.fail(reasons[video.error.code]);
}

if (player.video) watchVideo(player.video);
