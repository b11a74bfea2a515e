// Run by mongosh on a member: makes the replica set and two users, unless they are there.

const config = {
  _id: "rs0",
  members: [
    {_id: 0, host: "db1:27017", priority: 2},
    {_id: 1, host: "db2:27017"},
    {_id: 2, host: "db3:27017"},
  ],
};
const admin = db.getSiblingDB("admin");

function initiated() {
  try {
    rs.initiate(config);
    return true;
  } catch (error) {
    if (["AlreadyInitialized", "Unauthorized"].includes(error.codeName)) return false;
    throw error;
  }
}

const isNew = initiated();
while (!db.hello().isWritablePrimary) {
  if (!isNew && db.hello().primary) quit(0); // another member is primary: all is there already
  sleep(500);
}
try {
  admin.createUser({user: "admin", pwd: process.env.ADMIN_PASSWORD, roles: ["root"]});
} catch (error) {
  if (error.codeName !== "Unauthorized") throw error; // there are users already
}
admin.auth("admin", process.env.ADMIN_PASSWORD);
const tuning = db.getSiblingDB("tuning");
if (tuning.getUser("tuner") === null) {
  tuning.createUser({
    user: "tuner",
    pwd: process.env.TUNER_PASSWORD,
    roles: [{role: "readWrite", db: "tuning"}],
  });
}
